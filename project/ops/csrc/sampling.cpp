// Copyright (c) mmdetr authors. All rights reserved.
// Bilinear sampling as F.grid_sample(padding_mode='zeros',
// align_corners=False) does it, in its order of operations. Every instruction
// set gives the same bits: products and sums are fused where it is said alone,
// and sums over channels have a fixed order.
#include "sampling.h"

#include <vector>

namespace mmdetr {
namespace MMDETR_CAPABILITY {
namespace {

template <typename T>
struct VectorOf {
  static constexpr int64_t size = 32 / sizeof(T);
  typedef T type __attribute__((vector_size(32)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

template <typename T>
inline Vector<T> load(const T* from) {
  Vector<T> vector;
  __builtin_memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <typename T>
inline void store(T* to, const Vector<T>& vector) {
  __builtin_memcpy(to, &vector, sizeof(vector));
}

// Four lanes, after the upper half of a longer vector is added to the lower.
template <typename T>
struct QuadOf {
  typedef T type __attribute__((vector_size(4 * sizeof(T))));
};
template <typename T>
using Quad = typename QuadOf<T>::type;

inline Quad<float> fold(const Vector<float>& vector) {
  Quad<float> halves[2];
  __builtin_memcpy(halves, &vector, sizeof(vector));
  return halves[0] + halves[1];
}

inline Quad<double> fold(const Vector<double>& vector) { return vector; }

#if defined(__clang__)
#define MMDETR_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MMDETR_PICK(a, b, ...) \
  __builtin_shuffle(a, b, decltype(a < b){__VA_ARGS__})
#endif

// The sums over the lanes of four vectors, side by side.
template <typename T>
inline Quad<T> sums_of(const Vector<T>* vectors) {
  const Quad<T> a = fold(vectors[0]), b = fold(vectors[1]);
  const Quad<T> c = fold(vectors[2]), d = fold(vectors[3]);
  const Quad<T> ab =
      MMDETR_PICK(a, b, 0, 4, 1, 5) + MMDETR_PICK(a, b, 2, 6, 3, 7);
  const Quad<T> cd =
      MMDETR_PICK(c, d, 0, 4, 1, 5) + MMDETR_PICK(c, d, 2, 6, 3, 7);
  return MMDETR_PICK(ab, cd, 0, 1, 4, 5) + MMDETR_PICK(ab, cd, 2, 3, 6, 7);
}

inline float floor_of(float x) { return __builtin_floorf(x); }
inline double floor_of(double x) { return __builtin_floor(x); }

// a * b + c, rounded once.
inline float fused(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
inline double fused(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}

// Where a level lies among the keys.
struct Level {
  int64_t start, height, width;
};

std::vector<Level> levels_of(const Sizes& sizes) {
  std::vector<Level> levels;
  int64_t start = 0;
  for (int64_t i = 0; i < sizes.levels; ++i) {
    const int64_t height = sizes.shapes[2 * i];
    const int64_t width = sizes.shapes[2 * i + 1];
    levels.push_back({start, height, width});
    start += height * width;
  }
  return levels;
}

// A sampling point between four pixels: north-west, north-east, south-west,
// south-east.
template <typename T>
struct Point {
  T x, y;            // share of the way to the east and to the south
  bool is_outside;   // none of the pixels is on the map; so is NaN
  int64_t pixel[4];  // index, -1 beside the map
  T area[4];         // weight of each pixel

  Point(const T* location, const Level& level) {
    // As in mmcv, which scales to [-1, 1] for grid_sample to scale back, and
    // in torch's build of that: it decides on which side of a pixel's centre
    // a point lies.
    const T column = place(location[0], level.width);
    const T row = place(location[1], level.height);
    const T west = floor_of(column), north = floor_of(row);
    x = column - west;
    y = row - north;
    // Comparisons with NaN are false.
    is_outside = !(west >= -1 && west < level.width && north >= -1 &&
                   north < level.height);
    if (is_outside) return;
    const T rest_x = T(1) - x, rest_y = T(1) - y;
    area[0] = rest_x * rest_y;
    area[1] = x * rest_y;
    area[2] = rest_x * y;
    area[3] = x * y;
    const int64_t left = static_cast<int64_t>(west);
    const int64_t top = static_cast<int64_t>(north);
    const bool has[2][2] = {{top >= 0, top + 1 < level.height},
                            {left >= 0, left + 1 < level.width}};
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t down = i / 2, right = i % 2;
      const int64_t index = (top + down) * level.width + left + right;
      pixel[i] = has[0][down] && has[1][right] ? level.start + index : -1;
    }
  }

  // 0, or NaN for a point that is nowhere: what zeros times the areas give.
  T nothing() const { return T(0) * (x + y); }

 private:
  static T place(T location, int64_t size) {
    const T scaled = T(2) * location - T(1);
    return fused(scaled + T(1), T(size) / T(2), -T(0.5));
  }
};

// What a point adds to the output of its query.
template <typename T>
struct Term {
  const T* pixel[4];
  T area[4];
  T weight;
};

// The channels from `channel` on, as many as fit into NUM vectors.
template <typename T, int NUM>
inline void add_up(const Term<T>* terms, int64_t num_terms, T start,
                   int64_t channel, T* output) {
  constexpr int64_t size = VectorOf<T>::size;
  Vector<T> sums[NUM];
  for (int i = 0; i < NUM; ++i) sums[i] = Vector<T>{} + start;
  for (int64_t t = 0; t < num_terms; ++t) {
    const Term<T>& term = terms[t];
    for (int i = 0; i < NUM; ++i) {
      const int64_t at = channel + i * size;
      const Vector<T> sample = load(term.pixel[0] + at) * term.area[0] +
                               load(term.pixel[1] + at) * term.area[1] +
                               load(term.pixel[2] + at) * term.area[2] +
                               load(term.pixel[3] + at) * term.area[3];
      sums[i] += sample * term.weight;
    }
  }
  for (int i = 0; i < NUM; ++i) store(output + channel + i * size, sums[i]);
}

template <typename T>
inline void add_up_all(const std::vector<Term<T>>& terms, int64_t num_terms,
                       T start, int64_t channels, T* output) {
  constexpr int64_t size = VectorOf<T>::size;
  const Term<T>* first = terms.data();
  int64_t c = 0;
  for (; c + 4 * size <= channels; c += 4 * size)
    add_up<T, 4>(first, num_terms, start, c, output);
  for (; c + size <= channels; c += size)
    add_up<T, 1>(first, num_terms, start, c, output);
  for (; c < channels; ++c) {
    T total = start;
    for (int64_t t = 0; t < num_terms; ++t) {
      const Term<T>& term = terms[t];
      T sample = 0;
      for (int i = 0; i < 4; ++i) sample += term.pixel[i][c] * term.area[i];
      total += sample * term.weight;
    }
    output[c] = total;
  }
}

template <typename T>
void run_forward(const Sizes& sizes, const Inputs<T>& in, T* output,
                 int64_t begin, int64_t end) {
  const auto levels = levels_of(sizes);
  const int64_t num_points = sizes.levels * sizes.points;
  const int64_t stride = sizes.stride();
  const std::vector<T> zeros(sizes.channels);
  std::vector<Term<T>> terms(num_points);
  for (int64_t piece = begin; piece < end; ++piece) {
    const int64_t query = piece % sizes.queries;
    const int64_t head = piece / sizes.queries % sizes.heads;
    const int64_t image = piece / sizes.queries / sizes.heads;
    const int64_t row = (image * sizes.queries + query) * sizes.heads + head;
    const T* value = in.value + sizes.offset(image, head);
    int64_t num_terms = 0;
    T start = 0;
    for (int64_t i = 0; i < num_points; ++i) {
      const int64_t at = row * num_points + i;
      const T weight = in.weights[at];
      const Point<T> point(in.locations + 2 * at, levels[i / sizes.points]);
      if (point.is_outside) {
        start += point.nothing() * weight;
        continue;
      }
      Term<T>& term = terms[num_terms++];
      term.weight = weight;
      for (int k = 0; k < 4; ++k) {
        const int64_t pixel = point.pixel[k];
        term.pixel[k] = pixel < 0 ? zeros.data() : value + pixel * stride;
        __builtin_prefetch(term.pixel[k]);
        __builtin_prefetch(term.pixel[k] + 16);
        term.area[k] = point.area[k];
      }
    }
    add_up_all(terms, num_terms, start, sizes.channels,
               output + row * sizes.channels);
  }
}

// Adds the gradient of one pixel's values; returns the product of the output's
// gradient with these values.
template <typename T>
struct Pixel {
  const T* value;
  T* grad;
};

template <typename T>
inline void spread(const Pixel<T>* pixels, const T* areas, T weight,
                   const T* grad_output, int64_t channels, T* products) {
  constexpr int64_t size = VectorOf<T>::size;
  Vector<T> sums[4] = {};
  T scales[4];
  for (int k = 0; k < 4; ++k) scales[k] = weight * areas[k];
  int64_t c = 0;
  for (; c + size <= channels; c += size) {
    const Vector<T> grad = load(grad_output + c);
    for (int k = 0; k < 4; ++k) {
      sums[k] += grad * load(pixels[k].value + c);
      store(pixels[k].grad + c, load(pixels[k].grad + c) + grad * scales[k]);
    }
  }
  const Quad<T> totals = sums_of<T>(sums);
  for (int k = 0; k < 4; ++k) products[k] = totals[k];
  for (; c < channels; ++c) {
    for (int k = 0; k < 4; ++k) {
      products[k] += grad_output[c] * pixels[k].value[c];
      pixels[k].grad[c] += grad_output[c] * scales[k];
    }
  }
}

template <typename T>
void run_backward(const Sizes& sizes, const Inputs<T>& in,
                  const T* grad_output, const Gradients<T>& grads,
                  int64_t begin, int64_t end) {
  const auto levels = levels_of(sizes);
  const int64_t stride = sizes.stride();
  // Beside the map are zeros, and nobody asks for their gradient.
  const std::vector<T> zeros(sizes.channels);
  std::vector<T> unwanted(sizes.channels);
  for (int64_t piece = begin; piece < end; ++piece) {
    const int64_t index = piece % sizes.levels;
    const int64_t head = piece / sizes.levels % sizes.heads;
    const int64_t image = piece / sizes.levels / sizes.heads;
    const Level& level = levels[index];
    const int64_t first = sizes.offset(image, head);
    for (int64_t query = 0; query < sizes.queries; ++query) {
      const int64_t row = (image * sizes.queries + query) * sizes.heads + head;
      const T* grad = grad_output + row * sizes.channels;
      T nothing = 0;  // NaN where the gradient is not finite
      for (int64_t c = 0; c < sizes.channels; ++c) nothing += T(0) * grad[c];
      for (int64_t i = 0; i < sizes.points; ++i) {
        const int64_t at = (row * sizes.levels + index) * sizes.points + i;
        const T weight = in.weights[at];
        T* grad_location = grads.locations + 2 * at;
        const Point<T> point(in.locations + 2 * at, level);
        if (point.is_outside) {
          grads.weights[at] = nothing + point.nothing();
          grad_location[0] = nothing * weight + T(0) * point.y;
          grad_location[1] = nothing * weight + T(0) * point.x;
          continue;
        }
        Pixel<T> pixels[4];
        for (int k = 0; k < 4; ++k) {
          const int64_t at_pixel = first + point.pixel[k] * stride;
          pixels[k] = point.pixel[k] < 0
                          ? Pixel<T>{zeros.data(), unwanted.data()}
                          : Pixel<T>{in.value + at_pixel,
                                     grads.value + at_pixel};
        }
        T p[4];
        spread(pixels, point.area, weight, grad, sizes.channels, p);
        const T rest_x = T(1) - point.x, rest_y = T(1) - point.y;
        grads.weights[at] = p[0] * point.area[0] + p[1] * point.area[1] +
                            p[2] * point.area[2] + p[3] * point.area[3];
        grad_location[0] =
            ((p[1] - p[0]) * rest_y + (p[3] - p[2]) * point.y) * weight *
            T(level.width);
        grad_location[1] =
            ((p[2] - p[0]) * rest_x + (p[3] - p[1]) * point.x) * weight *
            T(level.height);
      }
    }
  }
}

}  // namespace

#define MMDETR_DEFINE(T)                                                      \
  void forward(const Sizes& sizes, const Inputs<T>& inputs, T* output,        \
               int64_t begin, int64_t end) {                                  \
    run_forward<T>(sizes, inputs, output, begin, end);                        \
  }                                                                           \
  void backward(const Sizes& sizes, const Inputs<T>& inputs,                  \
                const T* grad_output, const Gradients<T>& grads,              \
                int64_t begin, int64_t end) {                                 \
    run_backward<T>(sizes, inputs, grad_output, grads, begin, end);           \
  }
MMDETR_DEFINE(float)
MMDETR_DEFINE(double)

}  // namespace MMDETR_CAPABILITY
}  // namespace mmdetr
