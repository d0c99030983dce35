"""`nann build-engine`: the bundle's ONNX files -> TensorRT plans, one optimization profile per width of the grid."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from nann.bundle import SCORER_FILE, SCORER_HALF_FILE, USER_ENCODER_FILE, Bundle
from nann.durable_files import new_file, write_json
from nann.errors import BundleError, ConfigError, ScorerError
from nann.manifest import sha256_of
from nann.plans import (
    PLANS_FILE,
    PLANS_FORMAT_VERSION,
    Plans,
    Profile,
    check_profiles,
    is_unchanged,
    onnx_hash,
    optimization_profiles,
    plan_file,
    read_plans,
)
from nann.shape_grid import MAX_BATCH_SIZE
from nann.signature import SCORER, ModelSpec

from .engine_inspection import check_engine, check_network
from .tensorrt_api import LIBRARIES, find_tensorrt, make_logger, make_progress_monitor

TIMING_CACHE_FILE = "timing.cache"
"""In the plans' folder. It fits one GPU and TensorRT version; TensorRT refuses those of others."""
TIMING_CACHE_LIBRARIES = ("tensorrt",)
"""TensorRT for RTX does not time kernels while it builds."""

_IS_THERE_A_GPU = (
    "is there a GPU and a driver? Without one, name the kind of GPU that will serve: --compute-capability 8.6 or such, "
    "which needs TensorRT for RTX"
)


@dataclass(frozen=True)
class EngineOptions:
    """How to build.

    Attributes:
        half: the scorer in half precision, from the bundle's `scorer.fp16.onnx`.
        compute_capabilities: GPUs to build for, as "8.6"; empty: this machine's. Only TensorRT for RTX builds for other
            GPUs, and such an engine can't be inspected.
        optimization_level: TensorRT's builder optimization level, 0 to 5: how long it searches for fast kernels.
    """

    half: bool = True
    compute_capabilities: tuple[str, ...] = ()
    optimization_level: int = 3


def build_plans(bundle: Bundle, out: Path, options: EngineOptions, *, keep: bool = False) -> Plans:
    """Builds, inspects and writes the plans of `user_encoder` and `scorer` into the folder `out`, and plans.json last.

    The bundle's shape grid defines the optimization profiles. With `keep`, only those are built that are not in the
    folder yet: the plan of a scorer that gets its item rows with the call fits every corpus of the same model.

    Raises:
        ConfigError: if TensorRT is not installed, or can't build for the given GPUs or profiles.
        BundleError: if the bundle lacks a file.
        ScorerError: if TensorRT refuses a model, or the engine does not have the requested tensors and types.
    """
    trt = find_tensorrt()
    files = {name: _onnx_file(bundle, name, options) for name in bundle.exported_models}
    entries = fitting_plans(bundle, out, options) if keep else {}
    if entries.keys() == files.keys():
        return Plans.open(out, bundle)
    out.mkdir(parents=True, exist_ok=True)
    (out / PLANS_FILE).unlink(missing_ok=True)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name, spec in bundle.exported_models.items():
            if name in entries:
                continue
            builder = EngineBuilder(trt, spec, options, progress, out / TIMING_CACHE_FILE)
            profiles = optimization_profiles(bundle, spec)
            plan, inspection = builder.build(bundle.path / files[name], profiles)
            path = out / plan_file(name)
            with new_file(path) as temporary:  # an installed version may link to the old file
                temporary.write_bytes(plan)
            entries[name] = {
                "bytes": len(plan),
                "sha256": sha256_of(path),
                **_source(bundle, files[name]),
                "precision": "half" if _is_half(spec, options) else "full",
                "profiles": _as_json(profiles),
                "inspection": inspection,
            }
    manifest = {
        "format_version": PLANS_FORMAT_VERSION,
        **_builder(trt, options),
        "cuda": os.environ.get("CUDA_VERSION", "unknown"),
        "bundle_id": bundle.bundle_id,
        "shape_grid": bundle.shape_grid.to_manifest(),
        "max_batch_size": MAX_BATCH_SIZE,
        "plans": entries,
    }
    write_json(out / PLANS_FILE, manifest)
    return Plans.open(out, bundle)


def fitting_plans(bundle: Bundle, out: Path, options: EngineOptions) -> dict[str, dict[str, Any]]:
    """What plans.json says of the plans in a folder that `build_plans` would build again, by model.

    Raises:
        ConfigError: if TensorRT is not installed.
    """
    builder = _builder(find_tensorrt(), options)
    try:
        manifest = read_plans(out)
    except BundleError:
        return {}
    if {key: manifest.get(key) for key in builder} != builder:
        return {}
    return {
        name: entry
        for name, spec in bundle.exported_models.items()
        if (entry := manifest["plans"].get(name))
        and entry.get("profiles") == _as_json(optimization_profiles(bundle, spec))
        and _source(bundle, _onnx_file(bundle, name, options)).items() <= entry.items()
        and is_unchanged(out / plan_file(name), entry)
    }


def _builder(trt: Any, options: EngineOptions) -> dict[str, Any]:
    """What builds, and for which GPU, as plans.json says it."""
    return {
        "library": LIBRARIES[trt.__name__],
        "tensorrt": trt.__version__,
        "gpu": None if options.compute_capabilities else _gpu(),
        "compute_capabilities": list(options.compute_capabilities),
    }


def _source(bundle: Bundle, onnx_file: str) -> dict[str, str | None]:
    return {"onnx_file": onnx_file, "onnx_sha256": onnx_hash(bundle, onnx_file)}


def _as_json(profiles: Sequence[Profile]) -> list[dict[str, list[list[int]]]]:
    """Smallest and largest shape of each input by name, of each profile."""
    return [
        {tensor.name: [list(one.smallest[tensor]), list(one.largest[tensor])] for tensor in one.largest}
        for one in profiles
    ]


class EngineBuilder:
    """Builds the engine of one model.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        spec: names and dtypes that the engine must have.
        options: how to build.
        progress: shows TensorRT's phases.
        timing_cache: file with kernel timings of earlier builds; read, and written back.
    """

    def __init__(
        self, trt: Any, spec: ModelSpec, options: EngineOptions, progress: Progress, timing_cache: Path
    ) -> None:
        self._trt = trt
        self._spec = spec
        self._options = options
        self._progress = progress
        self._timing_cache = timing_cache
        self._logger = make_logger(trt)

    def build(self, onnx_path: Path, profiles: Sequence[Profile]) -> tuple[bytes, dict[str, Any]]:
        """Parses, checks, builds and inspects. Gives the plan and the inspection's result; raises as `build_plans`."""
        check_profiles(profiles)
        half = _is_half(self._spec, self._options)
        builder = self._trt.Builder(self._logger)
        if builder is None:
            raise ConfigError(f"TensorRT can't start: {self._reason()}; {_IS_THERE_A_GPU}")
        network = self._parse(builder, onnx_path)
        inspection: dict[str, Any] = {"network": check_network(self._trt, network, self._spec, half=half)}
        config = self._config(builder, profiles)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ScorerError(f"TensorRT can't build {self._spec.name} from {onnx_path}: {self._reason()}")
        self._write_timing_cache(config)
        content = bytes(plan)
        if not self._options.compute_capabilities:
            engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(content)
            if engine is None:
                raise ConfigError(
                    f"TensorRT can't load the engine of {self._spec.name} it built: {self._reason()}; {_IS_THERE_A_GPU}"
                )
            inspection["engine"] = check_engine(self._trt, engine, self._spec, profiles, half=half)
        return content, inspection

    def _parse(self, builder: Any, onnx_path: Path) -> Any:
        # TensorRT 11 has only strongly typed networks; TensorRT 10 needs the flag.
        network = builder.create_network(1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = self._trt.OnnxParser(network, self._logger)
        if not parser.parse_from_file(str(onnx_path)):
            reasons = [_parser_error(parser.get_error(number)) for number in range(parser.num_errors)]
            raise ScorerError(
                f"TensorRT can't read {onnx_path}: {'; '.join(reasons) or self._reason()}; "
                "write the module without it, or serve it with the target onnxruntime or torch"
            )
        return network

    def _config(self, builder: Any, profiles: Sequence[Profile]) -> Any:
        trt, config = self._trt, builder.create_builder_config()
        config.builder_optimization_level = self._options.optimization_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # keeps names and types for the inspection
        config.progress_monitor = make_progress_monitor(trt, self._progress)
        if LIBRARIES[trt.__name__] in TIMING_CACHE_LIBRARIES:
            cache = self._timing_cache.read_bytes() if self._timing_cache.exists() else b""
            config.set_timing_cache(config.create_timing_cache(cache), ignore_mismatch=False)
        if self._options.compute_capabilities:
            self._set_compute_capabilities(config)
        for number, profile in enumerate(profiles):
            requested = builder.create_optimization_profile()
            for tensor in self._spec.inputs:
                low, high = (1, *profile.smallest[tensor]), (MAX_BATCH_SIZE, *profile.largest[tensor])
                requested.set_shape(tensor.name, low, high, high)
            if config.add_optimization_profile(requested) != number:
                raise ConfigError(
                    f"TensorRT refuses optimization profile {number} of {self._spec.name}: {self._reason()}"
                )
        return config

    def _set_compute_capabilities(self, config: Any) -> None:
        trt, wanted = self._trt, self._options.compute_capabilities
        if not hasattr(trt, "ComputeCapability"):
            raise ConfigError(f"{trt.__name__} builds only for the GPU of this machine; leave out --compute-capability")
        known = {name: f"{name[2:-1]}.{name[-1]}" for name in dir(trt.ComputeCapability) if name.startswith("SM")}
        members = {text: getattr(trt.ComputeCapability, name) for name, text in known.items()}
        config.num_compute_capabilities = len(wanted)
        for number, text in enumerate(wanted):
            if text not in members:
                raise ConfigError(
                    f"--compute-capability is {text}; {trt.__name__} {trt.__version__} builds for "
                    f"{', '.join(sorted(members, key=float))}"
                )
            config.set_compute_capability(members[text], number)

    def _write_timing_cache(self, config: Any) -> None:
        if LIBRARIES[self._trt.__name__] in TIMING_CACHE_LIBRARIES:
            self._timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))

    def _reason(self) -> str:
        """The last error of TensorRT's log."""
        return self._logger.errors[-1] if self._logger.errors else "TensorRT gives no reason"


def _is_half(spec: ModelSpec, options: EngineOptions) -> bool:
    return options.half and spec.name == SCORER.name


def _onnx_file(bundle: Bundle, model: str, options: EngineOptions) -> str:
    scorer_file = SCORER_HALF_FILE if options.half else SCORER_FILE
    name = scorer_file if model == SCORER.name else USER_ENCODER_FILE
    if name not in bundle.manifest["files"]:
        command = "nann export --half" if name == SCORER_HALF_FILE else "nann export"
        raise BundleError(f"{bundle.path} has no {name}; run `{command}`, or build with --full-precision")
    return name


def _parser_error(error: Any) -> str:
    return f"node {error.node()} ({error.node_name()}, {error.node_operator()}): {error.desc()}"


def _gpu() -> dict[str, str]:
    """Name, compute capability and driver version of the first GPU, from nvidia-smi."""
    fields = ("name", "compute_cap", "driver_version")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return dict.fromkeys(fields, "unknown")
    first = result.stdout.splitlines()[0]
    return dict(zip(fields, (field.strip() for field in first.split(",")), strict=True))
