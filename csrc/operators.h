// What the files that register operators share.
#pragma once

#include <ATen/core/Tensor.h>

#ifdef IADD_WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace iadd {

// A contiguous operand, which must have that shape, and the dtype and device of `like`.
inline at::Tensor operand(const char* name, const at::Tensor& x, at::IntArrayRef shape,
                          const at::Tensor& like) {
  TORCH_CHECK_VALUE(x.sizes() == shape, name, " has shape ", x.sizes(), ", expected ", shape);
  TORCH_CHECK_TYPE(x.scalar_type() == like.scalar_type(), name, " is ", x.scalar_type(),
                   ", expected ", like.scalar_type());
  TORCH_CHECK_VALUE(x.device() == like.device(), name, " is on ", x.device(), ", expected ",
                    like.device());
  return x.contiguous();
}

#ifdef IADD_WITH_CUDA
// Call launch(stream) for the current stream of x's device; it returns a cudaError_t.
template <class Launch>
void on_device_of(const at::Tensor& x, const Launch& launch) {
  const c10::cuda::CUDAGuard guard(x.device());
  const auto stream = c10::cuda::getCurrentCUDAStream(x.get_device());
  C10_CUDA_CHECK(static_cast<cudaError_t>(launch(static_cast<void*>(stream.stream()))));
}
#endif

}  // namespace iadd
