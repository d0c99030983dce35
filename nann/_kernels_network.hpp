// The paper's score network in bfloat16: a few candidates at a time go through the target attention and all layers
// while they are in registers and in the nearest cache. The item's share of the first layer, softmax, activations and
// all sums are float32.
#pragma once

#include "_kernels_bf16.hpp"
#include "_kernels_scorer.hpp"

namespace nann {

// One layer after the first: weight float32[K, N], bias float32[N].
struct Layer {
  Matrix<const float> weight;
  const float* bias;
};

// Widths: H of the first layer, A of queries and keys, L of the history. A user's state begins with
// keys [A, L] | values [L, H] | mask [L], or with base [H] where A is 0; an item's row is share [H] | query [A].
struct NetworkShape {
  size_t hidden, attention, length;

  size_t row_width() const { return hidden + attention; }
  size_t state_width() const { return attention == 0 ? hidden : length * (attention + hidden + 1); }
};

#ifdef NANN_BF16
namespace detail {

struct PackedNetwork {
  NetworkShape shape;
  std::vector<bf16::Packed> layers;
  std::vector<std::vector<float>> biases;  // padded
  std::vector<float> slopes;               // of the activation before each layer, and before the output
  std::vector<float> output;               // padded
  float output_bias;
  size_t widest;  // padded
};

// One user's candidates through the network.
class NetworkUser {
 public:
  explicit NetworkUser(const PackedNetwork& network)
      : network_(network),
        first_(kScored * bf16::padded(network.shape.hidden)),
        logits_(kScored * bf16::padded(network.shape.length)),
        left_(kScored * network.widest),
        right_(kScored * network.widest) {}

  NANN_BF16 void start(const float* state) {
    const NetworkShape& shape = network_.shape;
    base_ = state;
    if (shape.attention == 0) return;
    const float* values = state + shape.attention * shape.length;
    const float* mask = values + shape.length * shape.hidden;
    // Padding at the ends has no weight, unless there is nothing else: its values are then all the same.
    size_t begin = 0, end = shape.length;
    while (begin < end && mask[begin] <= kMasked) ++begin;
    while (end > begin && mask[end - 1] <= kMasked) --end;
    if (begin == end) begin = 0, end = 1;
    keys_.assign(state + begin, shape.length, shape.attention, end - begin);
    values_.assign(values + begin * shape.hidden, shape.hidden, end - begin, shape.hidden);
    mask_.assign(bf16::padded(end - begin), kNothing);
    std::copy(mask + begin, mask + end, mask_.begin());
  }

  NANN_BF16 void score(const Candidates& candidates, float* scores) {
    if (candidates.count > 8)
      score_some<12>(candidates, scores);
    else if (candidates.count > 4)
      score_some<8>(candidates, scores);
    else
      score_some<4>(candidates, scores);
  }

 private:
  static constexpr float kMasked = -5e8f, kNothing = -3e38f;

  template <size_t M>
  NANN_BF16 void score_some(const Candidates& candidates, float* scores) {
    const size_t width = network_.widest, layers = network_.layers.size();
    alignas(64) bf16::Floats totals[M] = {};
    if (network_.shape.attention == 0) {
      add_base<M>(candidates, totals);
    } else {
      attend<M>(candidates, totals);
    }
    for (size_t layer = 0; layer < layers; ++layer) {
      const bf16::Input in{left_.data(), width};
      const bf16::Start start{network_.biases[layer].data(), 0};
      const float slope = network_.slopes[layer + 1];
      if (layer + 1 == layers)
        bf16::multiply<M>(in, network_.layers[layer], start, bf16::Output{slope, network_.output.data(), totals});
      else
        bf16::multiply<M>(in, network_.layers[layer], start, bf16::Activate{slope, right_.data(), width});
      left_.swap(right_);
    }
    for (size_t m = 0; m < M; ++m)
      scores[m] = network_.output_bias + _mm512_reduce_add_ps(_mm512_load_ps(totals[m].numbers));
  }

  // Calls the epilogue of the first layer: that of the output if it is the only one.
  template <typename Run>
  NANN_BF16_INLINE void finish_first(bf16::Floats* totals, const Run& run) {
    if (network_.layers.empty())
      run(bf16::Output{network_.slopes[0], network_.output.data(), totals});
    else
      run(bf16::Activate{network_.slopes[0], left_.data(), network_.widest});
  }

  template <size_t M>
  NANN_BF16 void add_base(const Candidates& candidates, bf16::Floats* totals) {
    const size_t hidden = network_.shape.hidden;
    const auto run = [&](const auto& done) NANN_BF16 {
      for (size_t m = 0; m < M; ++m)
        for (size_t at = 0; at < hidden; at += bf16::kLanes) {
          const __mmask16 lanes = bf16::first_lanes(hidden - at);
          const __m512 share = _mm512_maskz_loadu_ps(lanes, candidates.rows[m] + at);
          done(m, at / bf16::kLanes, _mm512_add_ps(share, _mm512_maskz_loadu_ps(lanes, base_ + at)));
        }
    };
    finish_first(totals, run);
  }

  template <size_t M>
  NANN_BF16 void attend(const Candidates& candidates, bf16::Floats* totals) {
    const size_t hidden = network_.shape.hidden, width = network_.widest;
    const size_t share_width = bf16::padded(hidden), logit_width = bf16::padded(network_.shape.length);
    for (size_t m = 0; m < M; ++m) {
      const float* row = candidates.rows[m];
      for (size_t at = 0; at < hidden; at += bf16::kLanes)
        _mm512_storeu_ps(first_.data() + m * share_width + at,
                         _mm512_maskz_loadu_ps(bf16::first_lanes(hidden - at), row + at));
      bf16::convert(row + hidden, network_.shape.attention, right_.data() + m * width);
    }
    const bf16::Input queries{right_.data(), width};
    bf16::multiply<M>(queries, keys_, {mask_.data(), 0}, bf16::Keep{logits_.data(), logit_width});
    for (size_t m = 0; m < M; ++m) softmax(logits_.data() + m * logit_width, right_.data() + m * width);
    const auto run = [&](const auto& done) NANN_BF16 {
      bf16::multiply<M>({right_.data(), width}, values_, {first_.data(), share_width}, done);
    };
    finish_first(totals, run);
  }

  // Over the groups of `mask_`; writes the weights in bfloat16.
  NANN_BF16_INLINE void softmax(float* logits, uint16_t* weights) const {
    const size_t groups = keys_.groups;
    __m512 most = _mm512_loadu_ps(logits);
    for (size_t group = 1; group < groups; ++group)
      most = _mm512_max_ps(most, _mm512_loadu_ps(logits + group * bf16::kLanes));
    most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    __m512 sum = _mm512_setzero_ps();
    for (size_t group = 0; group < groups; ++group) {
      float* at = logits + group * bf16::kLanes;
      const __m512 weight = bf16::exp(_mm512_sub_ps(_mm512_loadu_ps(at), most));
      _mm512_storeu_ps(at, weight);
      sum = _mm512_add_ps(sum, weight);
    }
    const __m512 scale = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sum));
    for (size_t group = 0; group < groups; ++group) {
      const size_t at = group * bf16::kLanes;
      bf16::store(weights + at, _mm512_mul_ps(_mm512_loadu_ps(logits + at), scale));
    }
  }

  const PackedNetwork& network_;
  const float* base_ = nullptr;
  bf16::Packed keys_, values_;
  std::vector<float> mask_, first_, logits_;
  std::vector<uint16_t> left_, right_;
};

}  // namespace detail
#endif

// Holds a network's weights, packed; threads may share it.
class NetworkScorer {
 public:
  // `slopes` are those of the LeakyReLU before each layer and before the output, `output` its weights.
  NetworkScorer(const NetworkShape& shape, const std::vector<Layer>& layers, const std::vector<float>& slopes,
                Matrix<const float> output, float output_bias)
      : shape_(shape) {
    require_bf16();
    size_t width = shape.hidden, widest = std::max({shape.hidden, shape.attention, shape.length});
    for (const Layer& layer : layers) {
      require_rows_of_layer(layer.weight.rows, width);
      width = layer.weight.cols;
      widest = std::max(widest, width);
    }
    require_rows_of_layer(output.cols, width);
    if (slopes.size() != layers.size() + 1)
      throw std::invalid_argument(std::to_string(slopes.size()) + " slopes came; expected " +
                                  std::to_string(layers.size() + 1) + ", one before each layer and the output");
#ifdef NANN_BF16
    network_ = {shape, {}, {}, slopes, padded(output.data, width), output_bias, bf16::padded(widest)};
    for (const Layer& layer : layers) {
      network_.layers.emplace_back();
      network_.layers.back().assign(layer.weight.data, layer.weight.cols, layer.weight.rows, layer.weight.cols);
      network_.biases.push_back(padded(layer.bias, layer.weight.cols));
    }
#else
    (void)output_bias;
#endif
  }

  // Scores the candidates, as `score_all`.
  void score(const ScorerInput& in, Matrix<float> scores, size_t threads) const {
    require_columns("candidate_rows", in.table.base.cols, shape_.row_width());
    if (in.states.cols < shape_.state_width()) require_columns("user_state", in.states.cols, shape_.state_width());
#ifdef NANN_BF16
    score_all(in, scores, threads, [&] { return detail::NetworkUser(network_); });
#else
    (void)scores, (void)threads;
#endif
  }

 private:
  static void require_rows_of_layer(size_t rows, size_t expected) {
    if (rows != expected)
      throw std::invalid_argument("a layer has " + std::to_string(rows) + " inputs; expected " +
                                  std::to_string(expected) + ", the outputs of the layer before");
  }

  NetworkShape shape_;
#ifdef NANN_BF16
  static std::vector<float> padded(const float* from, size_t count) {
    std::vector<float> numbers(bf16::padded(count));
    std::copy_n(from, count, numbers.begin());
    return numbers;
  }

  detail::PackedNetwork network_;
#endif
};

}  // namespace nann
