// A function that runs on the host and, compiled for a GPU, there too.
#pragma once

#ifdef __CUDACC__
#define IADD_BOTH __host__ __device__ inline
#else
#define IADD_BOTH inline
#endif
