// Binds `_kernels.hpp` to NumPy arrays, which are neither copied nor converted. `nann.kernels` checks dtypes and shapes
// first, with clear messages; nanobind refuses other mismatches with a TypeError.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "_kernels.hpp"
#include "_kernels_light.hpp"
#include "_kernels_network.hpp"
#include "_kernels_rows.hpp"
#include "_kernels_scan.hpp"
#include "_kernels_sets.hpp"
#include "_kernels_similarity.hpp"

namespace nb = nanobind;

namespace {

template <typename T>
using Array1 = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Array2 = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <typename T>
using NumpyArray1 = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
template <typename T>
using NumpyArray2 = nb::ndarray<nb::numpy, T, nb::ndim<2>>;

template <typename T>
nann::Matrix<T> matrix(const Array2<T>& array) {
  return {array.data(), array.shape(0), array.shape(1)};
}

// A one-dimensional array as a matrix of one row.
template <typename T>
nann::Matrix<T> row(const Array1<T>& array) {
  return {array.data(), 1, array.shape(0)};
}

nann::Csr csr(const Array1<const int32_t>& indptr, const Array1<const int32_t>& neighbors) {
  if (indptr.shape(0) == 0) throw std::invalid_argument("indptr is empty; expected one value more than items");
  return {indptr.data(), neighbors.data(), indptr.shape(0) - 1, neighbors.shape(0)};
}

// A new matrix that the core fills and NumPy then owns.
template <typename T>
class Result {
 public:
  Result(size_t rows, size_t cols) : data_(new T[rows * cols]), rows_(rows), cols_(cols) {}

  nann::Matrix<T> matrix() const { return {data_.get(), rows_, cols_}; }

  NumpyArray2<T> release() {
    T* data = data_.release();
    return NumpyArray2<T>(data, {rows_, cols_}, owner_of(data));
  }

  // The only row, as an array of one dimension.
  NumpyArray1<T> release_row() {
    T* data = data_.release();
    return NumpyArray1<T>(data, {cols_}, owner_of(data));
  }

 private:
  static nb::capsule owner_of(T* data) {
    return nb::capsule(data, [](void* pointer) noexcept { delete[] static_cast<T*>(pointer); });
  }

  std::unique_ptr<T[]> data_;
  size_t rows_, cols_;
};

void mark(Array2<uint64_t> visited, Array2<const int32_t> items) {
  nb::gil_scoped_release release;
  nann::mark(matrix(visited), matrix(items));
}

NumpyArray1<int64_t> count(Array2<const uint64_t> item_sets) {
  Result<int64_t> counts(1, item_sets.shape(0));
  {
    nb::gil_scoped_release release;
    nann::count(matrix(item_sets), counts.matrix());
  }
  return counts.release_row();
}

// What `find` returns, padded to a matrix.
template <typename Find>
NumpyArray2<int32_t> padded(size_t rows, const Find& find) {
  auto out = [&] {
    nb::gil_scoped_release release;
    const nann::Ragged found = find();
    Result<int32_t> matrix(rows, found.longest_row());
    found.copy_padded(matrix.matrix());
    return matrix;
  }();
  return out.release();
}

NumpyArray2<int32_t> expand(Array1<const int32_t> indptr, Array1<const int32_t> neighbors, Array2<uint64_t> visited,
                            Array2<const int32_t> frontier, size_t threads) {
  const nann::Csr layer = csr(indptr, neighbors);
  return padded(frontier.shape(0), [&] { return nann::expand(layer, matrix(visited), matrix(frontier), threads); });
}

NumpyArray2<int32_t> expand_through(Array1<const int32_t> indptr, Array1<const int32_t> neighbors,
                                    Array2<uint64_t> visited, Array2<const uint64_t> blocked,
                                    Array2<const int32_t> frontier, size_t reach, size_t threads) {
  const nann::Csr layer = csr(indptr, neighbors);
  return padded(frontier.shape(0), [&] {
    return nann::expand_through(layer, matrix(visited), matrix(blocked), matrix(frontier), reach, threads);
  });
}

nb::tuple merge_top(Array2<const int32_t> items, Array2<const float> scores, Array2<const int32_t> new_items,
                    Array2<const float> new_scores, Array1<const int32_t> ef, size_t threads) {
  const nann::MergeInput in{matrix(items), matrix(scores), matrix(new_items), matrix(new_scores), row(ef)};
  const size_t rows = items.shape(0), width = nann::merge_width(in);
  Result<int32_t> top_items(rows, width);
  Result<float> top_scores(rows, width);
  Result<bool> is_new(rows, width);
  {
    nb::gil_scoped_release release;
    nann::merge_top(in, {top_items.matrix(), top_scores.matrix(), is_new.matrix()}, threads);
  }
  return nb::make_tuple(top_items.release(), top_scores.release(), is_new.release());
}

nb::tuple light_walk(Array1<const int32_t> indptr, Array1<const int32_t> neighbors, Array1<const int32_t> entry_points,
                     Array2<const float> vectors, Array2<const float> users, size_t width, Array1<const int32_t> ef,
                     Array1<const int32_t> steps, std::optional<Array2<const uint64_t>> blocked, size_t threads) {
  const nann::LightInput in{csr(indptr, neighbors),
                            row(entry_points),
                            matrix(vectors),
                            matrix(users),
                            row(ef),
                            row(steps),
                            blocked ? matrix(*blocked) : nann::Matrix<const uint64_t>{}};
  Result<int32_t> items(users.shape(0), width), scored(1, users.shape(0));
  Result<float> scores(users.shape(0), width);
  {
    nb::gil_scoped_release release;
    nann::light_walk(in, {items.matrix(), scores.matrix(), scored.matrix()}, threads);
  }
  return nb::make_tuple(items.release(), scores.release(), scored.release_row());
}

nb::tuple light_scan(Array2<const int8_t> codes, Array2<const int16_t> users, Array2<const uint64_t> blocked,
                     Array1<const int32_t> counts, size_t threads) {
  const nann::ScanInput in{matrix(codes), matrix(users), matrix(blocked), row(counts)};
  const size_t width = nann::scan_width(in);
  Result<int32_t> items(users.shape(0), width), products(users.shape(0), width);
  {
    nb::gil_scoped_release release;
    nann::light_scan(in, {items.matrix(), products.matrix()}, threads);
  }
  return nb::make_tuple(items.release(), products.release());
}

NumpyArray2<float> gather_rows(Array2<const float> base, Array2<const float> delta, Array2<const int32_t> items,
                               size_t threads) {
  Result<float> rows(items.shape(0) * items.shape(1), base.shape(1));
  {
    nb::gil_scoped_release release;
    nann::gather_rows({matrix(base), matrix(delta), matrix(items)}, rows.matrix(), threads);
  }
  return rows.release();
}

using LayerArrays = std::tuple<Array2<const float>, Array1<const float>>;

void make_network(nann::NetworkScorer* self, size_t hidden, size_t attention, size_t length,
                  const std::vector<LayerArrays>& layers, const std::vector<float>& slopes, Array1<const float> output,
                  float output_bias) {
  std::vector<nann::Layer> parts;
  for (const auto& [weight, bias] : layers) {
    if (bias.shape(0) != weight.shape(1)) throw std::invalid_argument("a layer has not one bias for each output");
    parts.push_back({matrix(weight), bias.data()});
  }
  new (self) nann::NetworkScorer({hidden, attention, length}, parts, slopes, row(output), output_bias);
}

template <typename Scorer>
NumpyArray2<float> score(const Scorer& scorer, Array2<const float> states, Array2<const int32_t> candidates,
                         Array2<const float> base, Array2<const float> delta, size_t first, size_t threads) {
  const nann::ScorerInput in{matrix(states), matrix(candidates), {matrix(base), matrix(delta), first}};
  Result<float> scores(candidates.shape(0), candidates.shape(1));
  {
    nb::gil_scoped_release release;
    scorer.score(in, scores.matrix(), threads);
  }
  return scores.release();
}

template <typename Scorer>
nb::class_<Scorer> def_scorer(nb::module_& module, const char* name) {
  using namespace nb::literals;
  return nb::class_<Scorer>(module, name)
      .def("score", &score<Scorer>, "states"_a.noconvert(), "candidates"_a.noconvert(), "base"_a.noconvert(),
           "delta"_a.noconvert(), "first"_a, "threads"_a);
}

}  // namespace

NB_MODULE(_kernels, module) {
  using namespace nb::literals;
  module.doc() = "Native kernels of the search; call them through `nann.kernels`, which checks and documents.";

  module.def("mark", &mark, "visited"_a.noconvert(), "items"_a.noconvert());
  module.def("count", &count, "item_sets"_a.noconvert());
  module.def("expand", &expand, "indptr"_a.noconvert(), "neighbors"_a.noconvert(), "visited"_a.noconvert(),
             "frontier"_a.noconvert(), "threads"_a);
  module.def("expand_through", &expand_through, "indptr"_a.noconvert(), "neighbors"_a.noconvert(),
             "visited"_a.noconvert(), "blocked"_a.noconvert(), "frontier"_a.noconvert(), "reach"_a, "threads"_a);
  module.def("merge_top", &merge_top, "items"_a.noconvert(), "scores"_a.noconvert(), "new_items"_a.noconvert(),
             "new_scores"_a.noconvert(), "ef"_a.noconvert(), "threads"_a);
  module.def("light_walk", &light_walk, "indptr"_a.noconvert(), "neighbors"_a.noconvert(), "entry_points"_a.noconvert(),
             "vectors"_a.noconvert(), "users"_a.noconvert(), "width"_a, "ef"_a.noconvert(), "steps"_a.noconvert(),
             "blocked"_a.noconvert().none(), "threads"_a);
  module.def("light_scan", &light_scan, "codes"_a.noconvert(), "users"_a.noconvert(), "blocked"_a.noconvert(),
             "counts"_a.noconvert(), "threads"_a);
  module.def("has_bf16", &nann::has_bf16);
  def_scorer<nann::NetworkScorer>(module, "NetworkScorer")
      .def("__init__", &make_network, "hidden"_a, "attention"_a, "length"_a, "layers"_a, "slopes"_a,
           "output"_a.noconvert(), "output_bias"_a);
  def_scorer<nann::SimilarityScorer>(module, "SimilarityScorer")
      .def(
          "__init__",
          [](nann::SimilarityScorer* self, size_t width, size_t heads, size_t attended, size_t repeats, size_t digits,
             size_t evidences) {
            new (self) nann::SimilarityScorer({width, heads, attended, repeats, digits, evidences});
          },
          "width"_a, "heads"_a, "attended"_a, "repeats"_a, "digits"_a, "evidences"_a);
  module.def("gather_rows", &gather_rows, "base"_a.noconvert(), "delta"_a.noconvert(), "items"_a.noconvert(),
             "threads"_a);
}
