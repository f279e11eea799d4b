// The passes for any processor: 4 floats a register, whatever the compiler makes of them.
#define CONVNET_ISA generic
#define CONVNET_VECTOR_BYTES 16
#define CONVNET_ACCUMULATORS 12
#include "cpu_convnet_kernels.h"
