// The linear head and the cross-entropy with soft targets.
#pragma once

#include "cpu_convnet_pass.h"

namespace iadd::convnet::CONVNET_ISA {

template <class T, bool D>
struct Head : Arena<T, D> {
  using Base = Arena<T, D>;
  using Base::Base, Base::L, Base::job, Base::net, Base::each, Base::weights, Base::features;
  using Base::feature_gradient, Base::logits, Base::logit_gradient;
  using typename Base::Scratch;

  // copy(plain, held) for every feature of the micro-batch, by where it lies in both.
  template <class Copy>
  void each_feature(const Copy& copy) const {
    const Layer& l = net.layers[net.depth - 1];
    long plain = 0;
    for (long image = 0; image < job.count; ++image)
      for (long c = 0; c < l.out; ++c)
        for (long i = 0; i < l.pooled; ++i)
          copy(plain++, image * net.padded_features + ((c / L) * l.pooled + i) * L + c % L);
  }

  void copy_features() const {
    each_feature([&](long plain, long held) { job.features[plain] = features.last()[held]; });
  }

  void seed_features() const {
    for (long i = 0; i < job.count * net.padded_features; ++i) feature_gradient.v[i] = T(0);
    each_feature([&](long plain, long held) { feature_gradient.v[held] = job.seed[plain]; });
  }

  void head_forward() const {
    const long size = net.padded_features;
    each(job.count, [&](long image, const Scratch&) {
      for (long k = 0; k < net.classes; ++k) {
        const Ref<const T, D> x = features + image * size;
        const Ref<const T, D> w = weights(net.packed_head + k * size);
        const Num<T, D> sum =
            sum_over<T, D>(size / L, [&](long i) INLINE_LAMBDA { return x.get(i) * w.get(i); });
        const long at = image * net.classes + k;
        logits.v[at] = total<T>(sum.v) + job.weights[net.packed_head_bias + k];
        if constexpr (D) logits.d[at] = total<T>(sum.d) + job.direction[net.packed_head_bias + k];
      }
    });
    if (!job.logits) return;
    for (long i = 0; i < job.count * net.classes; ++i) job.logits[i] = logits.last()[i];
  }

  void loss() const {
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

  void head_backward() const {
    const long size = net.padded_features, classes = net.classes;
    const Layer& last = net.layers[net.depth - 1];
    each(last.out_blocks, [&](long block, const Scratch&) {
      const long at = block * last.pooled * L;
      Product<T> p{};
      p.a_row = classes, p.a_inner = 1;
      p.b_inner = size, p.b_vector = L;
      p.c_row = size, p.c_vector = L;
      p.inner = classes;
      multiply_dual<0>(p, logit_gradient, weights(net.packed_head + at), feature_gradient + at,
                       job.count, last.pooled);
      if (!job.gradient) return;
      p.a_row = 1, p.a_inner = classes;
      p.inner = job.count, p.accumulate = job.accumulate;
      multiply_last<D, 1>(p, logit_gradient, features + at, job.gradient + net.gradient_head + at,
                          classes, last.pooled);
    });
    if (!job.gradient) return;
    const T* g = logit_gradient.last();
    for (long k = 0; k < classes; ++k) {
      T sum = job.accumulate ? job.gradient[net.gradient_head_bias + k] : T(0);
      for (long image = 0; image < job.count; ++image) sum += g[image * classes + k];
      job.gradient[net.gradient_head_bias + k] = sum;
    }
  }
};

}  // namespace iadd::convnet::CONVNET_ISA
