// For text that runs on the host and, compiled for a GPU, there too.
#pragma once

#ifdef __CUDACC__
#define IADD_BOTH __host__ __device__ inline
#define IADD_UNROLL _Pragma("unroll")
#define IADD_UNROLL_SOME _Pragma("unroll 4")
#else
#define IADD_BOTH inline
#define IADD_UNROLL
#define IADD_UNROLL_SOME
#endif
