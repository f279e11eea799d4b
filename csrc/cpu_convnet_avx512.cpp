// The passes for AVX-512: 16 floats a register, 32 registers.
#include "cpu_convnet.h"  // before the target: what it includes is for any processor
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")
#define CONVNET_ISA avx512
#define CONVNET_VECTOR_BYTES 64
#define CONVNET_ACCUMULATORS 24
#include "cpu_convnet_kernels.h"
#endif
