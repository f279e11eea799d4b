// The softmax cross-entropy of one image: its loss and its gradient by the logits, and both once
// more in dual numbers. Written once over a `Group` of workers that share an image: a warp on a
// GPU, one worker on a CPU. No torch header here.
//
// With l the logits, p = softmax(l), y the targets, of any mass m = sum y, and s a scale:
//   loss = s sum y (log sum exp l - l),   by l = s (m p - y)
// and along l. with c = l. - sum p l.:
//   by l. = s m p c,   by y = -s c,   slope = sum (by l) l.
#pragma once

#include <cmath>
#include <cstdint>

#include "both.h"

namespace iadd::cross_entropy {

// Logits come as `parts` sums, (parts, images, classes), that are added up with the bias; those of
// dual numbers are (parts, 2, images, classes), and `moving` (parts, images, classes) belongs to
// their tangents. Null pointers without dual numbers: moving, bias_dot, by_targets.
template <class T>
struct Problem {
  int64_t parts, images, classes;
  T scale;
  const T *sums, *moving;
  const T *bias, *bias_dot;  // (classes,)
  const T* targets;          // (images, classes)
  T* by_logits;              // (images, classes); dual: 2 of them, tangents first
  T* by_targets;             // (images, classes)
  T* found;                  // (images,): losses; dual: slopes

  IADD_BOTH int64_t map() const { return images * classes; }
};

template <bool dual, class Group, class T>
IADD_BOTH void image(const Group& group, const Problem<T>& p, int64_t row) {
  const int64_t first = row * p.classes, map = p.map(), step = (dual ? 2 : 1) * map;
  const T* y = p.targets + first;
  // The logits wait where their adjoints will lie: an element is one worker's throughout.
  T* by_dot = p.by_logits + first;
  T* by = by_dot + (dual ? map : 0);
  T most = -INFINITY, mass = 0;
  for (int64_t k = group.rank(); k < p.classes; k += group.size()) {
    T logit = p.bias[k], along = 0;
    for (int64_t j = 0; j < p.parts; ++j) logit += p.sums[j * step + first + k];
    if constexpr (dual) {
      along = p.bias_dot[k];
      for (int64_t j = 0; j < p.parts; ++j)
        along += p.sums[j * step + map + first + k] + p.moving[j * map + first + k];
      by_dot[k] = along;
    }
    by[k] = logit, mass += y[k];
    most = logit > most ? logit : most;
  }
  most = group.max(most), mass = group.sum(mass);
  T total = 0;
  for (int64_t k = group.rank(); k < p.classes; k += group.size()) total += exp(by[k] - most);
  total = group.sum(total);
  T mean = 0, found = 0;
  if constexpr (dual) {
    for (int64_t k = group.rank(); k < p.classes; k += group.size())
      mean += exp(by[k] - most) / total * by_dot[k];
    mean = group.sum(mean);
  }
  const T level = most + log(total);
  for (int64_t k = group.rank(); k < p.classes; k += group.size()) {
    const T share = exp(by[k] - most) / total, slope = p.scale * (mass * share - y[k]);
    if constexpr (dual) {
      const T along = by_dot[k], centred = along - mean;
      found += slope * along;
      by_dot[k] = p.scale * mass * share * centred;
      p.by_targets[first + k] = -p.scale * centred;
    } else {
      found += p.scale * y[k] * (level - by[k]);
    }
    by[k] = slope;
  }
  found = group.sum(found);
  if (group.rank() == 0) p.found[row] = found;
}

#ifdef IADD_WITH_CUDA
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launch, 0 for none.
template <class T>
int launch(const Problem<T>&, void* stream);
#endif

}  // namespace iadd::cross_entropy
