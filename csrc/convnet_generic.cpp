// The native passes for any processor: 4 floats a register, whatever the compiler makes of them.
#include <cmath>
#include <utility>

#include "convnet.h"
#define CONVNET_ISA generic
#define CONVNET_VECTOR_BYTES 16
#define CONVNET_ACCUMULATORS 12
#include "convnet_kernels.h"
