// The 3x3 windows of images, with zeros around them, as rows of a matrix; and the adjoint. No torch
// header here.
#pragma once

#include <cstdint>

#include "both.h"

namespace iadd::patches {

// images (batch, channels, H, W); rows (batch H W, 9 channels), a row a pixel, its window channel
// by channel.
template <class T>
struct Problem {
  int64_t batch, channels;
  int height, width;
  const T* from;
  T* to;

  IADD_BOTH int64_t pixels() const { return batch * channels * height * width; }
  IADD_BOTH bool inside(int row, int column) const {
    return row >= 0 && row < height && column >= 0 && column < width;
  }
  // Of a pixel's row, the first of a channel's nine elements.
  IADD_BOTH int64_t window(int64_t image, int64_t channel, int row, int column) const {
    return (((image * height + row) * width + column) * channels + channel) * 9;
  }

  // Element i of the rows.
  IADD_BOTH void gather(int64_t i) const {
    const int tap = static_cast<int>(i % 9);
    const int64_t channel = i / 9 % channels, pixel = i / 9 / channels;
    const int column = static_cast<int>(pixel % width) + tap % 3 - 1;
    const int row = static_cast<int>(pixel / width % height) + tap / 3 - 1;
    const int64_t image = pixel / width / height;
    to[i] = inside(row, column)
                ? from[((image * channels + channel) * height + row) * width + column]
                : T(0);
  }

  // Element i of the images: the sum of all that the rows hold of it, in a fixed order.
  IADD_BOTH void scatter(int64_t i) const {
    const int column = static_cast<int>(i % width), row = static_cast<int>(i / width % height);
    const int64_t channel = i / width / height % channels, image = i / width / height / channels;
    T total = 0;
    for (int tap = 0; tap < 9; ++tap) {
      const int there = row - tap / 3 + 1, across = column - tap % 3 + 1;
      if (inside(there, across)) total += from[window(image, channel, there, across) + tap];
    }
    to[i] = total;
  }
};

#ifdef IADD_WITH_CUDA
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launch, 0 for none.
template <class T>
int launch(const Problem<T>&, bool adjoint, void* stream);
#endif

}  // namespace iadd::patches
