// The Python module: finds the best instruction set of this processor, and calls kernels by name on tensors' memory.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace nb = nanobind;
using namespace lossatlas;

// families.inc, written by the build, has FAMILY(isa, name) for every file of native/kernels and instruction set, and
// INSTRUCTION_SET(isa) for every instruction set, the best one first.
#define INSTRUCTION_SET(isa)
#define FAMILY(isa, name)           \
  namespace lossatlas::isa {        \
  void add_##name(Table& table);    \
  }
#include "families.inc"
#undef FAMILY
#undef INSTRUCTION_SET

namespace {

bool supported(const std::string& isa) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == "avx2") return avx2;
  if (isa == "avx512") {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
#endif
  return isa == "baseline";
}

struct InstructionSet {
  std::string name;
  Table table;
};

// The instruction sets that this processor has, the best one first. Only their code is ever run.
std::vector<InstructionSet>& instruction_sets() {
  static std::vector<InstructionSet> sets = [] {
    std::vector<InstructionSet> found;
#define INSTRUCTION_SET(isa) \
  if (supported(#isa)) found.push_back({#isa, {}});
#define FAMILY(isa, family) \
  if (!found.empty() && found.back().name == #isa) lossatlas::isa::add_##family(found.back().table);
#include "families.inc"
#undef FAMILY
#undef INSTRUCTION_SET
    return found;
  }();
  return sets;
}

std::size_t selected = 0;

void use_instruction_set(const std::string& name) {
  const auto& sets = instruction_sets();
  for (std::size_t index = 0; index < sets.size(); ++index) {
    if (sets[index].name == name) {
      selected = index;
      return;
    }
  }
  throw nb::value_error(("unknown instruction set " + name).c_str());
}

// torch's dtypes, in the order of `DType`: objects that live as long as the process.
std::array<PyObject*, 10> dtypes{};

void set_dtypes(const nb::tuple& known) {
  if (known.size() != dtypes.size()) throw nb::value_error("wrong number of dtypes");
  for (std::size_t code = 0; code < dtypes.size(); ++code) dtypes[code] = nb::object(known[code]).release().ptr();
}

Tensor describe(nb::handle object) {
  Tensor tensor;
  if (object.is_none()) return tensor;
  const nb::object dtype = object.attr("dtype");
  std::size_t code = 0;
  while (code < dtypes.size() && dtypes[code] != dtype.ptr()) ++code;
  if (code == dtypes.size()) throw nb::type_error("a tensor has a dtype that kernels do not know");
  tensor.dtype = static_cast<DType>(code);
  tensor.data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(object.attr("data_ptr")()));
  const nb::object shape = object.attr("shape"), strides = object.attr("stride")();
  const std::size_t axes = nb::len(shape);
  if (axes > static_cast<std::size_t>(max_axes)) throw nb::value_error("a tensor has more than 8 axes");
  tensor.axes = static_cast<int>(axes);
  for (std::size_t axis = 0; axis < axes; ++axis) {
    tensor.size[axis] = nb::cast<std::int64_t>(shape[axis]);
    tensor.stride[axis] = nb::cast<std::int64_t>(strides[axis]);
  }
  return tensor;
}

void call(const char* name, int threads, const nb::tuple& tensors, const nb::tuple& numbers) {
  const Kernel kernel = instruction_sets()[selected].table.find(name);
  if (kernel == nullptr) throw nb::value_error((std::string("unknown kernel ") + name).c_str());
  if (tensors.size() > static_cast<std::size_t>(max_tensors) || numbers.size() > static_cast<std::size_t>(max_numbers)) {
    throw nb::value_error("too many arguments for a kernel");
  }
  Arguments arguments;
  arguments.threads = threads;
  for (const nb::handle tensor : tensors) arguments.tensors[arguments.tensor_count++] = describe(tensor);
  for (const nb::handle number : numbers) arguments.numbers[arguments.number_count++] = nb::cast<double>(number);
  try {
    const nb::gil_scoped_release released;
    kernel(arguments);
  } catch (const Error& error) {
    throw nb::value_error((std::string(name) + ": " + error.message).c_str());
  }
}

std::vector<std::string> names() {
  const Table& table = instruction_sets()[selected].table;
  std::vector<std::string> found;
  for (int index = 0; index < table.size(); ++index) found.emplace_back(table.name(index));
  return found;
}

std::vector<std::string> instruction_set_names() {
  std::vector<std::string> found;
  for (const auto& set : instruction_sets()) found.push_back(set.name);
  return found;
}

}  // namespace

NB_MODULE(_native, module) {
  module.def("set_dtypes", &set_dtypes, "Tell torch's dtypes, in the order of DType.");
  module.def("instruction_sets", &instruction_set_names, "Return those that this processor has, the best one first.");
  module.def("instruction_set", [] { return instruction_sets()[selected].name; }, "Return the one in use.");
  module.def("use_instruction_set", &use_instruction_set, "Use another instruction set than the best one.");
  module.def("names", &names, "Return the names of all kernels.");
  module.def("call", &call, "Call a kernel with the memory of tensors (or None) and numbers.");
}
