// Copyright (c) mmdetr authors. All rights reserved.
// CPU kernels of the custom ops that ../custom_op.py declares.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>

#include "sampling.h"

namespace {

using at::Tensor;

// Pieces of the forward pass that a thread should have at least.
constexpr int64_t kGrain = 256;

bool has_avx2() {
#if defined(__x86_64__)
  static const bool has =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has;
#else
  return false;
#endif
}

#if defined(__x86_64__)
#define MMDETR_DISPATCH(function, ...)          \
  (has_avx2() ? mmdetr::avx2::function(__VA_ARGS__) \
              : mmdetr::generic::function(__VA_ARGS__))
#else
#define MMDETR_DISPATCH(function, ...) mmdetr::generic::function(__VA_ARGS__)
#endif

mmdetr::Sizes check(const Tensor& value, const Tensor& shapes,
                    const Tensor& locations, const Tensor& weights) {
  TORCH_CHECK(value.dim() == 4 && locations.dim() == 6 &&
                  locations.size(5) == 2 && weights.dim() == 5,
              "deformable attention takes value (bs, num_keys, num_heads, "
              "channels), locations (bs, num_queries, num_heads, num_levels, "
              "num_points, 2) and weights without the last of these axes, "
              "got ", value.sizes(), ", ", locations.sizes(), " and ",
              weights.sizes());
  TORCH_CHECK(weights.sizes() == locations.sizes().slice(0, 5) &&
                  value.size(0) == locations.size(0) &&
                  value.size(2) == locations.size(2),
              "the sizes of value ", value.sizes(), ", locations ",
              locations.sizes(), " and weights ", weights.sizes(),
              " do not belong together");
  TORCH_CHECK(shapes.dim() == 2 && shapes.size(1) == 2 &&
                  shapes.size(0) == locations.size(3),
              "spatial shapes have to be (height, width) of ",
              locations.size(3), " levels, got ", shapes.sizes());
  const int64_t* sides = shapes.const_data_ptr<int64_t>();
  int64_t keys = 0;
  for (int64_t i = 0; i < shapes.size(0); ++i) {
    TORCH_CHECK(sides[2 * i] > 0 && sides[2 * i + 1] > 0,
                "every level has to have pixels, got ", sides[2 * i], " x ",
                sides[2 * i + 1]);
    keys += sides[2 * i] * sides[2 * i + 1];
  }
  TORCH_CHECK(keys == value.size(1), "the levels have ", keys,
              " pixels, value has ", value.size(1));
  return {value.size(0),     keys, value.size(2), value.size(3),
          locations.size(1), locations.size(3), locations.size(4), sides,
          false};
}

// Values of one head lie 1 KB apart and fill an eighth of the cache's lines.
// Where most of them are wanted several times it pays to bring them together.
bool pays_to_transpose(const mmdetr::Sizes& sizes) {
  return sizes.queries * sizes.levels * sizes.points > 4 * sizes.keys;
}

// What is computed in: float unless value is double.
at::ScalarType compute_type(const Tensor& value, const Tensor& locations,
                            const Tensor& weights) {
  const auto type = value.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble ||
                  type == at::kBFloat16 || type == at::kHalf,
              "deformable attention takes floating point values, not ", type);
  const auto computed = type == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(locations.scalar_type() == computed &&
                  weights.scalar_type() == computed,
              "locations and weights have to be ", computed, " beside values "
              "in ", type, ", got ", locations.scalar_type(), " and ",
              weights.scalar_type());
  return computed;
}

template <typename T>
mmdetr::Inputs<T> pointers(const Tensor& value, const Tensor& locations,
                           const Tensor& weights) {
  return {value.const_data_ptr<T>(), locations.const_data_ptr<T>(),
          weights.const_data_ptr<T>()};
}

template <typename T>
void forward(const mmdetr::Sizes& sizes, const mmdetr::Inputs<T>& inputs,
             T* output) {
  const int64_t pieces = sizes.batch * sizes.heads * sizes.queries;
  at::parallel_for(0, pieces, kGrain, [&](int64_t begin, int64_t end) {
    MMDETR_DISPATCH(forward, sizes, inputs, output, begin, end);
  });
}

template <typename T>
void backward(const mmdetr::Sizes& sizes, const mmdetr::Inputs<T>& inputs,
              const T* grad, const mmdetr::Gradients<T>& grads) {
  const int64_t pieces = sizes.batch * sizes.heads * sizes.levels;
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    MMDETR_DISPATCH(backward, sizes, inputs, grad, grads, begin, end);
  });
}

// Between (bs, num_keys, num_heads, channels) and (bs, num_heads, num_keys,
// channels), if so wanted.
Tensor arrange(const Tensor& value, bool is_by_head) {
  return (is_by_head ? value.transpose(1, 2) : value).contiguous();
}

Tensor attend(const Tensor& value, const Tensor& spatial_shapes,
              const Tensor& locations, const Tensor& weights) {
  const Tensor shapes = spatial_shapes.to(at::kLong).contiguous();
  auto sizes = check(value, shapes, locations, weights);
  const auto type = compute_type(value, locations, weights);
  sizes.is_by_head = pays_to_transpose(sizes);
  const Tensor v = arrange(value.to(type), sizes.is_by_head);
  const Tensor l = locations.contiguous(), w = weights.contiguous();
  Tensor output = at::empty(
      {sizes.batch, sizes.queries, sizes.heads * sizes.channels}, v.options());
  if (type == at::kDouble)
    forward(sizes, pointers<double>(v, l, w),
            output.mutable_data_ptr<double>());
  else
    forward(sizes, pointers<float>(v, l, w), output.mutable_data_ptr<float>());
  return output.to(value.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> attend_backward(
    const Tensor& grad_output, const Tensor& value,
    const Tensor& spatial_shapes, const Tensor& locations,
    const Tensor& weights) {
  const Tensor shapes = spatial_shapes.to(at::kLong).contiguous();
  auto sizes = check(value, shapes, locations, weights);
  const auto type = compute_type(value, locations, weights);
  TORCH_CHECK(grad_output.numel() == sizes.batch * sizes.queries *
                                         sizes.heads * sizes.channels,
              "the gradient has shape ", grad_output.sizes(),
              ", which is not that of the output");
  const Tensor g = grad_output.to(type).contiguous();
  sizes.is_by_head = pays_to_transpose(sizes);
  const Tensor v = arrange(value.to(type), sizes.is_by_head);
  const Tensor l = locations.contiguous(), w = weights.contiguous();
  Tensor grad_value = at::zeros(v.sizes(), v.options());
  Tensor grad_locations = at::empty(l.sizes(), l.options());
  Tensor grad_weights = at::empty(w.sizes(), w.options());
  if (type == at::kDouble)
    backward<double>(sizes, pointers<double>(v, l, w),
                     g.const_data_ptr<double>(),
                     {grad_value.mutable_data_ptr<double>(),
                      grad_locations.mutable_data_ptr<double>(),
                      grad_weights.mutable_data_ptr<double>()});
  else
    backward<float>(sizes, pointers<float>(v, l, w), g.const_data_ptr<float>(),
                    {grad_value.mutable_data_ptr<float>(),
                     grad_locations.mutable_data_ptr<float>(),
                     grad_weights.mutable_data_ptr<float>()});
  grad_value = arrange(grad_value, sizes.is_by_head);
  return {grad_value.to(value.scalar_type()), grad_locations, grad_weights};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdetr, CPU, library) {
  library.impl("deformable_attention", &attend);
  library.impl("deformable_attention_backward", &attend_backward);
}
