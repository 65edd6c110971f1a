// Copyright (c) mmdetr authors. All rights reserved.
// The loops of multi-scale deformable attention, which know nothing of torch:
// sampling.cpp is compiled once for every instruction set.
#pragma once

#include <cstdint>

namespace mmdetr {

// Tensors are contiguous. Value has shape (batch, keys, heads, channels),
// sampling locations (batch, queries, heads, levels, points, 2) as (x, y) in
// [0, 1], attention weights the same without the last axis, the output
// (batch, queries, heads, channels). A level begins where the last one ends.
struct Sizes {
  int64_t batch, keys, heads, channels, queries, levels, points;
  const int64_t* shapes;  // (height, width) of each level
  bool is_by_head;        // value is transposed, (batch, heads, keys, channels)

  // From one key's values to the next one's.
  int64_t stride() const { return is_by_head ? channels : heads * channels; }
  // The first value of a head.
  int64_t offset(int64_t image, int64_t head) const {
    return image * keys * heads * channels +
           head * (is_by_head ? keys * channels : channels);
  }
};

template <typename T>
struct Inputs {
  const T* value;
  const T* locations;
  const T* weights;
};

// `value` starts as zeros; the others are written to.
template <typename T>
struct Gradients {
  T* value;
  T* locations;
  T* weights;
};

// The work is cut into (batch, head, query) for the forward pass and into
// (batch, head, level) for the backward pass, where no two pieces write to the
// same place; [begin, end) of them are done, in order.
#define MMDETR_DECLARE(T)                                                     \
  void forward(const Sizes&, const Inputs<T>&, T* output, int64_t begin,      \
               int64_t end);                                                  \
  void backward(const Sizes&, const Inputs<T>&, const T* grad_output,         \
                const Gradients<T>&, int64_t begin, int64_t end);
#define MMDETR_DECLARE_ALL                                                    \
  MMDETR_DECLARE(float)                                                       \
  MMDETR_DECLARE(double)

namespace generic {
MMDETR_DECLARE_ALL
}
namespace avx2 {
MMDETR_DECLARE_ALL
}

}  // namespace mmdetr
