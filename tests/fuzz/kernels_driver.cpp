// Random calls of the native kernels under AddressSanitizer and UndefinedBehaviorSanitizer: `make sanitize`.
//
// Arrays are heap blocks of exactly their size, so that an access beyond the end is found. Half of the calls have ids,
// indptr and ef of any value. They may be refused, but only with the two exceptions that _kernels.hpp names.
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

#include "_kernels.hpp"
#include "_kernels_light.hpp"
#include "_kernels_network.hpp"
#include "_kernels_rows.hpp"
#include "_kernels_scan.hpp"
#include "_kernels_sets.hpp"
#include "_kernels_similarity.hpp"

namespace {

using Random = std::mt19937;

int below(Random& random, int limit) { return static_cast<int>(random() % static_cast<unsigned>(limit)); }

// Mostly values from -1 to limit - 1; in wild calls sometimes any value.
int32_t number(Random& random, int limit, bool wild) {
  if (wild && below(random, 12) == 0) return static_cast<int32_t>(random());
  if (below(random, 8) == 0) return -1;
  return below(random, std::max(limit, 1));
}

template <typename T>
nann::Matrix<T> matrix(std::vector<std::remove_const_t<T>>& values, size_t rows, size_t cols) {
  values.resize(rows * cols);
  values.shrink_to_fit();
  return {values.data(), rows, cols};
}

struct Graph {
  std::vector<int32_t> indptr, neighbors;
  nann::Csr csr;
};

Graph make_graph(Random& random, bool wild) {
  Graph graph;
  const int items = 1 + below(random, 200);
  graph.indptr.push_back(0);
  for (int item = 0; item < items; ++item) {
    for (int i = below(random, 6); i > 0; --i)
      graph.neighbors.push_back(wild ? number(random, items, true) : below(random, items));
    graph.indptr.push_back(static_cast<int32_t>(graph.neighbors.size()));
  }
  if (wild && below(random, 4) == 0)
    graph.indptr[static_cast<size_t>(below(random, items))] = number(random, items, true);
  graph.indptr.shrink_to_fit();
  graph.neighbors.shrink_to_fit();
  graph.csr = {graph.indptr.data(), graph.neighbors.data(), static_cast<size_t>(items), graph.neighbors.size()};
  return graph;
}

std::vector<int32_t> ids(Random& random, size_t count, int limit, bool wild) {
  std::vector<int32_t> values(count);
  for (int32_t& value : values) value = number(random, limit, wild);
  return values;
}

std::vector<float> floats(Random& random, size_t count, bool wild) {
  static const float kSpecial[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 1e-45f};
  std::vector<float> values(count);
  for (float& value : values)
    value = below(random, 6) == 0 ? kSpecial[below(random, wild ? 8 : 2)] : static_cast<float>(below(random, 100)) / 7;
  return values;
}

std::vector<uint64_t> bitmaps(Random& random, size_t words) {
  std::vector<uint64_t> values(words);
  for (uint64_t& value : values) value = below(random, 3) == 0 ? 0 : uint64_t{random()} << 32 | random();
  return values;
}

// How many words a bitmap has: what the items need, or one more; in wild calls perhaps too few.
size_t word_count(Random& random, size_t items, bool wild) {
  return wild ? static_cast<size_t>(below(random, 5)) : (items + 63) / 64 + static_cast<size_t>(below(random, 2));
}

size_t threads(Random& random) { return 1 + static_cast<size_t>(below(random, 3)); }

void mark_and_expand(Random& random, bool wild) {
  const Graph graph = make_graph(random, wild);
  const int items = static_cast<int>(graph.csr.item_count);
  const size_t users = static_cast<size_t>(below(random, 5)), width = static_cast<size_t>(below(random, 20));
  const size_t words = static_cast<size_t>(wild ? below(random, 5) : (items + 63) / 64);
  std::vector<uint64_t> bits(users * words);
  std::vector<int32_t> marked = ids(random, users * width, items, wild),
                       frontier = ids(random, users * width, items, wild);
  const auto visited = matrix<uint64_t>(bits, users, words);
  nann::mark(visited, matrix<const int32_t>(marked, users, width));
  const nann::Ragged found =
      nann::expand(graph.csr, visited, matrix<const int32_t>(frontier, users, width), threads(random));
  std::vector<int32_t> out;
  found.copy_padded(matrix<int32_t>(out, users, found.longest_row()));
}

void expand_through(Random& random, bool wild) {
  const Graph graph = make_graph(random, wild);
  const int items = static_cast<int>(graph.csr.item_count);
  const size_t users = static_cast<size_t>(below(random, 5)), width = static_cast<size_t>(below(random, 20));
  const size_t seen_words = word_count(random, graph.csr.item_count, wild);
  const size_t blocked_words = word_count(random, graph.csr.item_count, wild);
  std::vector<uint64_t> seen = bitmaps(random, users * seen_words), blocked = bitmaps(random, users * blocked_words);
  std::vector<int32_t> frontier = ids(random, users * width, items, wild), out;
  std::vector<int64_t> counts;
  nann::count(matrix<const uint64_t>(blocked, users, blocked_words), matrix<int64_t>(counts, 1, users));
  const nann::Ragged found = nann::expand_through(
      graph.csr, matrix<uint64_t>(seen, users, seen_words), matrix<const uint64_t>(blocked, users, blocked_words),
      matrix<const int32_t>(frontier, users, width), random() % 9, threads(random));
  found.copy_padded(matrix<int32_t>(out, users, found.longest_row()));
}

void light_scan(Random& random, bool wild) {
  const size_t items = static_cast<size_t>(below(random, 300)), users = static_cast<size_t>(below(random, 5));
  const size_t dim = wild ? static_cast<size_t>(below(random, 40)) : 16 * static_cast<size_t>(below(random, 4));
  const size_t words = word_count(random, items, wild);
  std::vector<int8_t> codes(items * dim);
  std::vector<int16_t> states(users * dim);
  for (int8_t& code : codes) code = static_cast<int8_t>(random());
  for (int16_t& code : states) code = static_cast<int16_t>(random());
  std::vector<uint64_t> blocked = bitmaps(random, users * words);
  std::vector<int32_t> counts(users), out, products;
  for (int32_t& count : counts) count = below(random, 30) - 2;
  const nann::ScanInput in{matrix<const int8_t>(codes, items, dim), matrix<const int16_t>(states, users, dim),
                           matrix<const uint64_t>(blocked, users, words), matrix<const int32_t>(counts, 1, users)};
  const size_t width = nann::scan_width(in);
  nann::light_scan(in, {matrix<int32_t>(out, users, width), matrix<int32_t>(products, users, width)}, threads(random));
}

void merge(Random& random, bool wild) {
  const size_t users = static_cast<size_t>(below(random, 5));
  const size_t old_cols = static_cast<size_t>(below(random, 20)), new_cols = static_cast<size_t>(below(random, 20));
  std::vector<int32_t> items = ids(random, users * old_cols, 300, wild),
                       fresh = ids(random, users * new_cols, 300, wild);
  std::vector<float> scores = floats(random, items.size(), wild), fresh_scores = floats(random, fresh.size(), wild);
  std::vector<int32_t> ef(users);
  for (int32_t& value : ef) value = wild ? number(random, 30, true) : 1 + below(random, 30);
  const nann::MergeInput in{matrix<const int32_t>(items, users, old_cols), matrix<const float>(scores, users, old_cols),
                            matrix<const int32_t>(fresh, users, new_cols),
                            matrix<const float>(fresh_scores, users, new_cols), matrix<const int32_t>(ef, 1, users)};
  const size_t width = nann::merge_width(in);
  std::vector<int32_t> out_items;
  std::vector<float> out_scores;
  const std::unique_ptr<bool[]> is_new(new bool[users * width]);
  nann::merge_top(
      in,
      {matrix<int32_t>(out_items, users, width), matrix<float>(out_scores, users, width), {is_new.get(), users, width}},
      threads(random));
}

void light_walk(Random& random, bool wild) {
  const Graph graph = make_graph(random, wild);
  const size_t items = graph.csr.item_count, users = static_cast<size_t>(below(random, 5));
  const size_t dim = static_cast<size_t>(below(random, 40)), width = static_cast<size_t>(below(random, 20));
  const size_t entry_count = static_cast<size_t>(below(random, 5));
  std::vector<int32_t> entries(entry_count);
  for (int32_t& entry : entries)
    entry = wild ? number(random, static_cast<int>(items), true) : below(random, static_cast<int>(items));
  std::vector<float> vectors = floats(random, items * dim, wild), states = floats(random, users * dim, wild);
  std::vector<int32_t> ef(users), steps(users), out_items, scored;
  for (size_t user = 0; user < users; ++user) {
    ef[user] = wild ? number(random, 30, true) : 1 + below(random, 30);
    steps[user] = wild ? number(random, 50, true) : below(random, 50);
  }
  std::vector<float> out_scores;
  const bool under = below(random, 2) == 0;  // some items are blocked
  const size_t words = under ? word_count(random, items, wild) : 0;
  std::vector<uint64_t> blocked = bitmaps(random, users * words);
  nann::light_walk({graph.csr, matrix<const int32_t>(entries, 1, entry_count), matrix<const float>(vectors, items, dim),
                    matrix<const float>(states, users, dim), matrix<const int32_t>(ef, 1, users),
                    matrix<const int32_t>(steps, 1, users), matrix<const uint64_t>(blocked, under ? users : 0, words)},
                   {matrix<int32_t>(out_items, users, width), matrix<float>(out_scores, users, width),
                    matrix<int32_t>(scored, 1, users)},
                   threads(random));
}

void gather_rows(Random& random, bool wild) {
  const size_t old_rows = static_cast<size_t>(below(random, 100)), new_rows = static_cast<size_t>(below(random, 10));
  const size_t dim = static_cast<size_t>(below(random, 40)), new_dim = wild && below(random, 8) == 0 ? dim + 1 : dim;
  const size_t users = static_cast<size_t>(below(random, 5)), width = static_cast<size_t>(below(random, 200));
  std::vector<float> base = floats(random, old_rows * dim, wild), delta = floats(random, new_rows * new_dim, wild), out;
  // Without rows only padding is valid.
  const int limit = static_cast<int>(old_rows + new_rows);
  std::vector<int32_t> items =
      limit || wild ? ids(random, users * width, limit, wild) : std::vector<int32_t>(users * width, nann::kPaddingItem);
  nann::gather_rows({matrix<const float>(base, old_rows, dim), matrix<const float>(delta, new_rows, new_dim),
                     matrix<const int32_t>(items, users, width)},
                    matrix<float>(out, users * width, dim), threads(random));
}

// A scorer of rows of `row_width` numbers and states of `state_width` numbers, under random candidates.
template <typename Scorer>
void score(Random& random, const Scorer& scorer, size_t row_width, size_t state_width, bool wild) {
  const size_t rows = 1 + static_cast<size_t>(below(random, 60)), later = static_cast<size_t>(below(random, 5));
  const size_t users = static_cast<size_t>(below(random, 4)), width = static_cast<size_t>(below(random, 60));
  const bool narrow = wild && row_width > 0 && state_width > 0 && below(random, 8) == 0;
  const size_t columns = row_width - narrow, numbers = state_width - narrow;
  std::vector<float> base = floats(random, rows * columns, wild), delta = floats(random, later * columns, wild), out;
  std::vector<float> states = floats(random, users * numbers, wild);
  std::vector<int32_t> items = ids(random, users * width, static_cast<int>(rows + later), wild);
  scorer.score({matrix<const float>(states, users, numbers),
                matrix<const int32_t>(items, users, width),
                {matrix<const float>(base, rows, columns), matrix<const float>(delta, later, columns), rows}},
               matrix<float>(out, users, width), threads(random));
}

void score_network(Random& random, bool wild) {
  if (!nann::has_bf16()) return;
  const auto size = [&](int limit) { return static_cast<size_t>(below(random, limit)); };
  const nann::NetworkShape shape{1 + size(50), below(random, 3) == 0 ? 0 : 1 + size(40), 1 + size(40)};
  const size_t wide = 1 + size(40), layers = size(2), last = layers == 0 ? shape.hidden : wide;
  std::vector<float> weight = floats(random, shape.hidden * wide, wild), bias = floats(random, wide, wild);
  std::vector<float> output = floats(random, last, wild);
  std::vector<nann::Layer> parts(layers, {matrix<const float>(weight, shape.hidden, wide), bias.data()});
  const nann::NetworkScorer scorer(shape, parts, std::vector<float>(layers + 1, 0.1f),
                                   matrix<const float>(output, 1, last), 0.5f);
  score(random, scorer, shape.row_width(), shape.state_width(), wild);
}

void score_similarity(Random& random, bool wild) {
  const auto size = [&](int limit) { return static_cast<size_t>(below(random, limit)); };
  nann::SimilarityShape shape{1 + size(40), nann::has_bf16() ? size(3) : 0, 1 + size(40), size(40), size(4), 0};
  shape.evidences = shape.heads + (shape.repeats > 0);
  const size_t in_row = shape.repeats > 0 && below(random, 2) == 0 ? shape.digits : 0;
  score(random, nann::SimilarityScorer(shape), shape.own_width() + in_row, shape.state_width(), wild);
}

constexpr void (*kCalls[])(Random&, bool) = {mark_and_expand, expand_through, merge,         light_walk,
                                             light_scan,      gather_rows,    score_network, score_similarity};

}  // namespace

int main(int argc, char** argv) {
  const long calls = argc > 1 ? std::atol(argv[1]) : 100000;
  const unsigned seed = argc > 2 ? static_cast<unsigned>(std::atol(argv[2])) : 1;
  Random random(seed);
  long refused = 0;
  for (long call = 0; call < calls; ++call) {
    const bool wild = call % 2 != 0;
    try {
      kCalls[call / 2 % static_cast<long>(std::size(kCalls))](random, wild);
    } catch (const std::out_of_range&) {
      ++refused;
      if (!wild) return std::fprintf(stderr, "call %ld is valid and was refused\n", call), 1;
    } catch (const std::invalid_argument&) {
      ++refused;
      if (!wild) return std::fprintf(stderr, "call %ld is valid and was refused\n", call), 1;
    }
  }
  std::printf("%ld random calls of the kernels, %ld of them refused, seed %u\n", calls, refused, seed);
  return 0;
}
