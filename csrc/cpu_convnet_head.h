// Members of Pass: the linear head and the cross-entropy with soft targets.
#pragma once

#include "cpu_convnet_pass.h"

namespace iadd::convnet::CONVNET_ISA {

template <class T, bool D>
inline void Pass<T, D>::copy_features() {
  const Layer& l = net.layers[net.depth - 1];
  const T* from = features.last();
  for (long image = 0; image < job.count; ++image)
    for (long c = 0; c < l.out; ++c)
      for (long i = 0; i < l.pooled; ++i)
        job.features[(image * l.out + c) * l.pooled + i] =
            from[image * net.padded_features + ((c / L) * l.pooled + i) * L + c % L];
}

template <class T, bool D>
inline void Pass<T, D>::seed_features() {
  const Layer& l = net.layers[net.depth - 1];
  for (long i = 0; i < job.count * net.padded_features; ++i) feature_gradient.v[i] = T(0);
  for (long image = 0; image < job.count; ++image)
    for (long c = 0; c < l.out; ++c)
      for (long i = 0; i < l.pooled; ++i)
        feature_gradient.v[image * net.padded_features + ((c / L) * l.pooled + i) * L + c % L] =
            job.seed[(image * l.out + c) * l.pooled + i];
}

template <class T, bool D>
INLINE Num<T, D> Pass<T, D>::dot(Ref<const T, D> a, Ref<const T, D> b, long vectors) const {
  Num<T, D> sum[4] = {};
  long i = 0;
  for (; i + 4 <= vectors; i += 4)
#pragma GCC unroll 4
    for (long j = 0; j < 4; ++j) sum[j] = sum[j] + get(a, i + j) * get(b, i + j);
  for (; i < vectors; ++i) sum[0] = sum[0] + get(a, i) * get(b, i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <class T, bool D>
INLINE Num<T, D> Pass<T, D>::get(Ref<const T, D> r, long vector) {
  if constexpr (D)
    return {load(r.v + vector * L), load(r.d + vector * L)};
  else
    return {load(r.v + vector * L)};
}

template <class T, bool D>
inline void Pass<T, D>::head_forward() const {
  const long size = net.padded_features;
  each(job.count, [&](long image, const Scratch&) {
    for (long k = 0; k < net.classes; ++k) {
      const Num<T, D> sum =
          dot(constant(features + image * size), weights(net.packed_head + k * size), size / L);
      const long at = image * net.classes + k;
      logits.v[at] = total<T>(sum.v) + job.weights[net.packed_head_bias + k];
      if constexpr (D) logits.d[at] = total<T>(sum.d) + job.direction[net.packed_head_bias + k];
    }
  });
  if (!job.logits) return;
  for (long i = 0; i < job.count * net.classes; ++i) job.logits[i] = logits.last()[i];
}

template <class T, bool D>
inline void Pass<T, D>::loss() {
  const long classes = net.classes;
  double sum = 0, slope = 0;
  for (long image = 0; image < job.count; ++image) {
    const long at = image * classes;
    const Ref<T, D> z = logits + at, g = logit_gradient + at;
    const T* target = job.seed + at;
    T largest = z.v[0], norm = 0, mass = 0, linear = 0, moved = 0;
    for (long k = 1; k < classes; ++k) largest = z.v[k] > largest ? z.v[k] : largest;
    for (long k = 0; k < classes; ++k) norm += g.v[k] = std::exp(z.v[k] - largest);
    for (long k = 0; k < classes; ++k) {
      g.v[k] /= norm;
      mass += target[k];
      linear += target[k] * (z.v[k] - largest);
      if constexpr (D) moved += g.v[k] * z.d[k];
    }
    sum += double(mass * std::log(norm) - linear);
    for (long k = 0; k < classes; ++k) {
      if constexpr (D) {
        g.d[k] = g.v[k] * (z.d[k] - moved) * mass * job.mean;
        slope += double((g.v[k] * mass - target[k]) * z.d[k]);
        if (job.target_gradient) job.target_gradient[at + k] = (moved - z.d[k]) * job.mean;
      }
      g.v[k] = (g.v[k] * mass - target[k]) * job.mean;
    }
  }
  if (job.loss) *job.loss = sum * double(job.mean);
  if (job.slope) *job.slope = slope * double(job.mean);
}

template <class T, bool D>
inline void Pass<T, D>::head_backward() const {
  const long size = net.padded_features, classes = net.classes;
  const Layer& last = net.layers[net.depth - 1];
  each(last.out_blocks, [&](long block, const Scratch&) {
    const long at = block * last.pooled * L;
    Product<T> p = {nullptr, classes, 1,    0, nullptr, size, 0,
                    L,       nullptr, size, L, classes, 1,    false};
    multiply_dual<0>(p, constant(logit_gradient), weights(net.packed_head + at),
                     feature_gradient + at, job.count, last.pooled);
    if (!job.gradient) return;
    p = {nullptr, 1,       classes, 0, nullptr,   size, 0,
         L,       nullptr, size,    L, job.count, 1,    job.accumulate};
    multiply_last<1>(p, constant(logit_gradient), constant(features + at),
                     job.gradient + net.gradient_head + at, classes, last.pooled);
  });
  if (!job.gradient) return;
  const T* g = logit_gradient.last();
  for (long k = 0; k < classes; ++k) {
    T sum = job.accumulate ? job.gradient[net.gradient_head_bias + k] : T(0);
    for (long image = 0; image < job.count; ++image) sum += g[image * classes + k];
    job.gradient[net.gradient_head_bias + k] = sum;
  }
}

}  // namespace iadd::convnet::CONVNET_ISA
