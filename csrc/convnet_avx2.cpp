// The native passes for AVX2 with FMA: 8 floats a register, 16 registers.
#include <cmath>
#include <utility>

#include "convnet.h"
#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#define CONVNET_ISA avx2
#define CONVNET_VECTOR_BYTES 32
#define CONVNET_ACCUMULATORS 12
#include "convnet_kernels.h"
#endif
