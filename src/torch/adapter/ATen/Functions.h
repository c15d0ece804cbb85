// Stands in front of libtorch's header of this name, in the folder that the compiler searches first. That header declares all
// functions of ATen, of which adapter.h includes the few that the adapter calls, and parsing it takes seconds of each build.
// Headers of libtorch's that the adapter needs, such as torch/nn/module.h, include it by ATen/ATen.h and use none of it.
#pragma once
