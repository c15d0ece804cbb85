// Stands in front of libtorch's header of this name, for the reason that Functions.h in this folder gives. The adapter calls
// none of the native kernels that it declares.
#pragma once
