# find_package(Torch) for the examples. libtorch's own TorchConfig.cmake does it wherever it can. That of a CUDA build
# refuses a machine without the CUDA toolkit, though nothing of it is needed to compile these programs: then libtorch_cpu
# and libc10 are taken as they are, which is enough for models on the CPU.
#
# Looks where CMAKE_PREFIX_PATH or Torch_DIR says, then for the torch of the Python in PATH. Gives what TorchConfig.cmake
# gives: TORCH_LIBRARIES, TORCH_INCLUDE_DIRS, TORCH_CXX_FLAGS.

find_path(Torch_DIR TorchConfig.cmake PATH_SUFFIXES share/cmake/Torch)
if(NOT Torch_DIR)
  find_program(TORCH_PYTHON NAMES python3 python)
  if(TORCH_PYTHON)
    # Without importing it, which takes seconds.
    execute_process(
      COMMAND "${TORCH_PYTHON}" -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE _torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    find_path(Torch_DIR TorchConfig.cmake PATHS "${_torch}/share/cmake/Torch" NO_DEFAULT_PATH)
  endif()
endif()

get_filename_component(_torch "${Torch_DIR}/../../.." ABSOLUTE)
find_program(TORCH_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT Torch_DIR)
  set(Torch_NOT_FOUND_MESSAGE "name the folder of libtorch in CMAKE_PREFIX_PATH, or activate a Python that has torch")
elseif(TORCH_NVCC OR NOT EXISTS "${_torch}/lib/libtorch_cuda.so")
  find_package(Torch CONFIG QUIET PATHS "${Torch_DIR}" NO_DEFAULT_PATH)
elseif(NOT TARGET torch_plain)
  message(STATUS "Torch: ${_torch} is a CUDA build and there is no nvcc: linking its CPU part only")
  add_library(torch_plain INTERFACE IMPORTED)
  set(TORCH_INCLUDE_DIRS "${_torch}/include" "${_torch}/include/torch/csrc/api/include")
  # Wheels before 2.7 may use the old std::string, which shows in libc10's symbols.
  file(STRINGS "${_torch}/lib/libc10.so" _strings REGEX "NSt7__cxx1112basic_string" LIMIT_COUNT 1)
  if(_strings)
    set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=1")
  else()
    set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=0")
  endif()
  # Newer headers need C++20, the oldest ones take C++17.
  set(_standard cxx_std_17)
  if(EXISTS "${_torch}/include/torch/headeronly/version.h")
    file(STRINGS "${_torch}/include/torch/headeronly/version.h" _minor REGEX "define TORCH_VERSION_MINOR")
    string(REGEX REPLACE "[^0-9]" "" _minor "${_minor}")
    if(_minor GREATER_EQUAL 12)
      set(_standard cxx_std_20)
    endif()
  endif()
  set_target_properties(torch_plain PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${TORCH_INCLUDE_DIRS}"
    INTERFACE_COMPILE_OPTIONS "${TORCH_CXX_FLAGS}"
    INTERFACE_COMPILE_FEATURES "${_standard}"
    INTERFACE_LINK_LIBRARIES "${_torch}/lib/libtorch_cpu.so;${_torch}/lib/libc10.so")
  set(TORCH_LIBRARIES torch_plain)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Torch REQUIRED_VARS TORCH_LIBRARIES TORCH_INCLUDE_DIRS
                                  REASON_FAILURE_MESSAGE "${Torch_NOT_FOUND_MESSAGE}")
