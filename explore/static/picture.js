/** The items in two dimensions on a canvas: a background that is drawn once, and what a walk marks on it. */

import { bytes } from "./api.js";
import { $, color } from "./dom.js";

const MARGIN = 18;
export const MARKS = {
  own: ["✕", "the user's own items"],
  seed: ["▲", "seeds, entry points"],
  frontier: ["○", "frontier: looked around"],
  scored: ["▪", "scored in this round"],
  visited: ["·", "scored before"],
  best: ["◆", "best so far"],
};

/** One mark at (x, y); marks differ in form, not in colour alone. */
export function mark(context, kind, x, y, size = 1) {
  const r = 4 * size;
  context.beginPath();
  context.fillStyle = context.strokeStyle = color(`mark-${kind}`);
  context.lineWidth = 1.5 * size;
  switch (kind) {
    case "own":
      context.moveTo(x - r, y - r);
      context.lineTo(x + r, y + r);
      context.moveTo(x + r, y - r);
      context.lineTo(x - r, y + r);
      context.stroke();
      break;
    case "seed":
      context.moveTo(x, y - r * 1.2);
      context.lineTo(x + r * 1.1, y + r * 0.8);
      context.lineTo(x - r * 1.1, y + r * 0.8);
      context.closePath();
      context.fill();
      break;
    case "frontier":
      context.arc(x, y, r * 1.05, 0, 2 * Math.PI);
      context.stroke();
      break;
    case "best":
      context.moveTo(x, y - r);
      context.lineTo(x + r, y);
      context.lineTo(x, y + r);
      context.lineTo(x - r, y);
      context.closePath();
      context.fill();
      break;
    case "visited":
      context.arc(x, y, r * 0.3, 0, 2 * Math.PI);
      context.fill();
      break;
    default:
      context.fillRect(x - r * 0.45, y - r * 0.45, r * 0.9, r * 0.9);
  }
}

export class Picture {
  constructor() {
    this.box = $("picture");
    this.items = new Int32Array(0);
    this.x = this.y = new Uint16Array(0);
    this.levels = new Uint8Array(0);
    this.layer = 0;
    this.zoom = { scale: 1, x: 0, y: 0 };
    this.onDraw = () => {};
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.#listen();
  }

  /** Loads the sample of items; the page works without it until it is there. */
  async load() {
    const buffer = await bytes("points");
    const count = buffer.byteLength / 9;
    this.items = new Int32Array(buffer, 0, count);
    this.x = new Uint16Array(buffer, 4 * count, count);
    this.y = new Uint16Array(buffer, 6 * count, count);
    this.levels = new Uint8Array(buffer, 8 * count, count);
    this.draw();
  }

  /** The canvas's place of a point from 0 to 1. */
  place(x, y) {
    const { clientWidth: width, clientHeight: height } = this.box;
    const { scale, x: left, y: top } = this.zoom;
    return [
      left + scale * (MARGIN + x * (width - 2 * MARGIN)),
      top + scale * (MARGIN + (1 - y) * (height - 2 * MARGIN)),
    ];
  }

  /** The sampled item next to a place of the canvas, or null. */
  nearest(px, py, within = 6) {
    let [best, distance] = [null, within * within];
    for (let at = 0; at < this.items.length; at += 1) {
      const [x, y] = this.place(this.x[at] / 65535, this.y[at] / 65535);
      const own = (x - px) ** 2 + (y - py) ** 2;
      if (own < distance) [best, distance] = [this.items[at], own];
    }
    return best;
  }

  draw() {
    const context = this.#context("items");
    context.fillStyle = color("mark-item");
    const size = this.items.length > 40_000 ? 1 : 1.4;
    for (let at = 0; at < this.items.length; at += 1) {
      const here = this.levels[at] >= this.layer;
      context.globalAlpha = this.layer && here ? 0.9 : this.layer ? 0.12 : 0.28;
      const [x, y] = this.place(this.x[at] / 65535, this.y[at] / 65535);
      const side = this.layer && here ? 2.4 : size;
      context.fillRect(x - side / 2, y - side / 2, side, side);
    }
    context.globalAlpha = 1;
    this.onDraw(this.#context("walk"));
  }

  /** Draws the walk alone again. */
  redraw() {
    this.onDraw(this.#context("walk"));
  }

  setLayer(layer) {
    if (layer === this.layer) return this.redraw();
    this.layer = layer;
    return this.draw();
  }

  zoomBy(factor, px = this.box.clientWidth / 2, py = this.box.clientHeight / 2) {
    const scale = Math.min(40, Math.max(1, this.zoom.scale * factor));
    const real = scale / this.zoom.scale;
    this.zoom =
      scale === 1
        ? { scale: 1, x: 0, y: 0 }
        : { scale, x: px - real * (px - this.zoom.x), y: py - real * (py - this.zoom.y) };
    this.draw();
  }

  #context(id) {
    const canvas = $(id);
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.box.clientWidth * ratio, this.box.clientHeight * ratio].map(Math.round);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.box.clientWidth, this.box.clientHeight);
    return context;
  }

  #listen() {
    let from = null;
    this.box.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const edge = this.box.getBoundingClientRect();
        this.zoomBy(Math.exp(-event.deltaY / 400), event.clientX - edge.left, event.clientY - edge.top);
      },
      { passive: false },
    );
    this.box.addEventListener("pointerdown", (event) => {
      from = [event.clientX - this.zoom.x, event.clientY - this.zoom.y];
    });
    window.addEventListener("pointerup", () => {
      from = null;
    });
    this.box.addEventListener("pointermove", (event) => {
      if (!from || this.zoom.scale === 1) return;
      Object.assign(this.zoom, { x: event.clientX - from[0], y: event.clientY - from[1] });
      this.draw();
    });
    this.box.addEventListener("dblclick", () => this.zoomBy(0));
  }
}
