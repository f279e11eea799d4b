// The passes for AVX2 with FMA: 8 floats a register, 16 registers.
#include "cpu_convnet.h"  // before the target: what it includes is for any processor
#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#define CONVNET_ISA avx2
#define CONVNET_VECTOR_BYTES 32
#define CONVNET_ACCUMULATORS 12
#include "cpu_convnet_kernels.h"
#endif
