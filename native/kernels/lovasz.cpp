// Lovász losses: the errors of all classes in one pass, a sort for each class, and the way back through the softmax. The twin
// is in src/lossatlas/losses/lovasz.py.
#include "lovasz.hpp"

#include "softmax.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

// Tensors and numbers, in this order (src/lossatlas/kernels/lovasz.py):
//
//   tensors  slopes (N, C, *spatial), float32 without gaps; input (N, C, *spatial); target: class indices (N, *spatial), or
//            like the input; of `lovasz` the elements and whether they are valid, float32, and of `lovasz_chain` the
//            upstream gradient of the elements, float32, and the gradient, like the input: the elements are (N, K) or (K,)
//            with the K classes that count
//   numbers  what the errors are (`Errors`), the ignored target, whether each image has its elements, whether a class that is
//            absent has one, and the first class that counts
struct Problem {
  enum Operand { slopes, input, target, gradient };

  Problem(const Arguments& given, const Tensor& gradients)
      : arguments(given),
        errors(static_cast<Errors>(static_cast<int>(given.number(0)))),
        ignored(static_cast<float>(given.number(1))),
        per_image(given.number(2) != 0.0),
        absent(given.number(3) != 0.0),
        first_class(static_cast<std::int64_t>(given.number(4))),
        images(given.tensor(0).size[0]),
        classes(given.tensor(0).size[1]),
        indices(given.tensor(2).axes < given.tensor(1).axes),
        values(given.tensor(0).floats(given.tensor(1).elements())),
        planes{Planes(given.tensor(0), 1), Planes(given.tensor(1), 1), Planes(indices ? Tensor{} : given.tensor(2), 1),
               Planes(gradients, 1)},
        first{Planes(planes[slopes].first, 0), Planes(planes[input].first, 0),
              Planes(indices ? given.tensor(2) : planes[target].first, 0), Planes(planes[gradient].first, 0)},
        layout({&first[slopes].first, &first[input].first, &first[target].first, &first[gradient].first}) {
    pixels = layout.elements();
  }

  // Where a plane of an operand begins.
  std::int64_t shift(Operand operand, std::int64_t image, std::int64_t c) const {
    return image * first[operand].stride + c * planes[operand].stride;
  }

  std::int64_t rows() const { return per_image ? images : 1; }
  std::int64_t elements() const { return rows() * (classes - first_class); }
  std::int64_t element(std::int64_t image, std::int64_t c) const {
    return (per_image ? image : 0) * (classes - first_class) + c - first_class;
  }

  const Arguments& arguments;
  Errors errors;
  float ignored;
  bool per_image, absent;
  std::int64_t first_class, images, classes;
  bool indices;
  float* values;
  Planes planes[4], first[4];
  Layout<4> layout;
  std::int64_t pixels = 0;
};

// Probabilities of classes that exclude each other: their errors, and the derivative of what is made of them.
class Probabilities {
 public:
  explicit Probabilities(const Problem& problem) : p_(problem) {
    const std::int64_t blocks = 131072 / (p_.classes * block_size);
    task_size_ = block_size * (blocks < 1 ? 1 : blocks);
    tasks_ = (p_.pixels + task_size_ - 1) / task_size_;
  }

  void errors() const {
    const Partials wrong(p_.images * tasks_);
    for_softmax([&](Softmax& softmax, std::int64_t task, const auto& rows) {
      *wrong[task] += softmax.wrong;
      for (std::int64_t c = 0; c < p_.classes; ++c) make_errors(softmax, c, softmax.row(c));
      softmax.store(rows(Problem::slopes));
    });
    if (wrong.total() != 0.0) throw Error{"a class index is out of range"};
  }

  // Turn slopes in probabilities into the gradient of the logits, which may lie in the same memory.
  void differentiate() const {
    const float* const upstream = p_.arguments.tensor(3).floats(p_.elements());
    check_storable(p_.arguments.tensor(4));
    for_softmax([&](Softmax& softmax, std::int64_t task, const auto& rows) {
      const Array<float> steep(p_.classes * softmax.width, 0.0f);
      Block buffer, drift;
      for (int i = 0; i < softmax.width; ++i) drift.values[i] = 0.0f;
      for (std::int64_t c = p_.first_class; c < p_.classes; ++c) {
        const float* slopes = rows(Problem::slopes).load(c, buffer.values);
        weigh(softmax, c, slopes, upstream[p_.element(task / tasks_, c)], steep.begin() + c * softmax.width,
              drift.values);
      }
      for (std::int64_t c = 0; c < p_.classes; ++c) {
        make_gradient(softmax, c, steep.begin() + c * softmax.width, drift.values, softmax.row(c));
        if (!softmax.all_valid()) softmax.clear_ignored(softmax.row(c));
      }
      softmax.store(rows(Problem::gradient));
    });
  }

 private:
  // Call body(softmax, task, rows) for all blocks of all images; rows(operand) is a block of an operand.
  template <class Body>
  void for_softmax(const Body& body) const {
    parallel(p_.images * tasks_, p_.arguments.threads, [&](std::int64_t task) {
      const std::int64_t image = task / tasks_;
      Softmax softmax(p_.classes);
      Block buffer;
      for_blocks(task % tasks_, task_size_, p_.pixels, softmax.width, [&](std::int64_t begin, int count) {
        const auto rows = [&](Problem::Operand operand) {
          return Rows(p_.layout, operand, p_.planes[operand], begin, count, softmax.width, p_.shift(operand, image, 0));
        };
        const std::int64_t shift = p_.shift(Problem::target, image, 0);
        const float* index = p_.layout.load(Problem::target, begin, count, buffer, shift, softmax.width);
        softmax.compute(index, count, p_.ignored, rows(Problem::input));
        body(softmax, task, rows);
      });
    });
  }

  static void make_errors(const Softmax& softmax, std::int64_t c, float* __restrict e) {
    const float own = static_cast<float>(c);
    for (int i = 0; i < softmax.width; ++i) {
      const bool is_own = softmax.truth[i] == own;
      e[i] = mark(is_own ? softmax.miss[i] : e[i] * softmax.scale[i], is_own, softmax.valid(i));
    }
  }

  static void weigh(const Softmax& softmax, std::int64_t c, const float* __restrict slopes, float upstream,
                    float* __restrict steep, float* __restrict drift) {
    const float* __restrict e = softmax.row(c);
    const float own = static_cast<float>(c);
    for (int i = 0; i < softmax.width; ++i) {
      const float p = softmax.truth[i] == own ? softmax.hit[i] : e[i] * softmax.scale[i];
      steep[i] = slopes[i] * upstream;
      drift[i] += p * steep[i];
    }
  }

  static void make_gradient(const Softmax& softmax, std::int64_t c, const float* __restrict steep,
                            const float* __restrict drift, float* __restrict e) {
    const float own = static_cast<float>(c);
    for (int i = 0; i < softmax.width; ++i) {
      const float p = softmax.truth[i] == own ? softmax.hit[i] : e[i] * softmax.scale[i];
      e[i] = p * (steep[i] - drift[i]);
    }
  }

  const Problem& p_;
  std::int64_t task_size_, tasks_;
};

// The errors of channels that are a yes/no question each.
class Answers {
 public:
  explicit Answers(const Problem& problem) : p_(problem) {}

  void errors() const {
    const std::int64_t tasks = (p_.pixels + task_size - 1) / task_size, planes = p_.images * p_.classes;
    const Partials wrong(planes * tasks);
    parallel(planes * tasks, p_.arguments.threads, [&](std::int64_t number) {
      const std::int64_t plane = number / tasks, image = plane / p_.classes, c = plane % p_.classes;
      const std::int64_t shift = p_.shift(Problem::slopes, image, c);
      Block x_buffer, target_buffer, buffer, out;
      for_blocks(number % tasks, task_size, p_.pixels, block_size, [&](std::int64_t begin, int count) {
        const float* x =
            p_.layout.load(Problem::input, begin, count, x_buffer, p_.shift(Problem::input, image, c));
        const float* target =
            p_.layout.load(Problem::target, begin, count, target_buffer, p_.shift(Problem::target, image, c));
        if (p_.indices) {
          *wrong[number] += outside(target, count);
          own(target, static_cast<float>(c), buffer.values);
          target = buffer.values;
        }
        float* to = p_.layout.destination(Problem::slopes, begin, count, out, shift);
        if (p_.errors == Errors::sigmoid) {
          write_errors(x, target, to, [](float margin) { return logistic(margin).sigmoid; });
        } else {
          write_errors(x, target, to, [](float margin) { return 1.0f + margin < 0.0f ? 0.0f : 1.0f + margin; });
        }
        if (to == out.values) p_.layout.store(Problem::slopes, begin, count, to, shift);
      });
    });
    if (wrong.total() != 0.0) throw Error{"a class index is out of range"};
  }

 private:
  static constexpr std::int64_t task_size = 32 * block_size;

  double outside(const float* __restrict index, int count) const {
    std::int32_t found = 0;
    for (int i = 0; i < count; ++i) {
      const bool inside = (index[i] >= 0.0f) & (index[i] < static_cast<float>(p_.classes));
      found += (index[i] != p_.ignored) & !inside;
    }
    return found;
  }

  void own(const float* __restrict index, float c, float* __restrict to) const {
    for (int i = 0; i < block_size; ++i) to[i] = index[i] == p_.ignored ? index[i] : (index[i] == c ? 1.0f : 0.0f);
  }

  template <class Error>
  void write_errors(const float* __restrict x, const float* __restrict target, float* __restrict to,
                    const Error& error) const {
    for (int i = 0; i < block_size; ++i) {
      const bool positive = target[i] > 0.5f;
      to[i] = mark(error(positive ? -x[i] : x[i]), positive, target[i] != p_.ignored);
    }
  }

  const Problem& p_;
};

// With the elements, and where a gradient is wanted: the slopes, which take the place of the errors.
void lovasz(const Arguments& arguments) {
  const Problem problem(arguments, Tensor{});
  if (problem.errors != Errors::softmax) {
    Answers(problem).errors();
  } else {
    Probabilities(problem).errors();
  }
  float* const elements = arguments.tensor(3).floats(problem.elements());
  float* const valid = arguments.tensor(4).floats(problem.elements());
  const std::int64_t in_row = problem.per_image ? 1 : problem.images;
  const std::int64_t step = problem.classes * problem.pixels, rows = problem.rows() * problem.classes;
  // The threads share the chunks of each row, so that the memory of one sort is enough, or where rows are short the rows.
  const bool share_rows = LovaszRow::chunks(in_row * problem.pixels) < arguments.threads;
  parallel(rows, share_rows ? arguments.threads : 1, [&](std::int64_t number) {
    const std::int64_t image = number / problem.classes, c = number % problem.classes;
    float* const plane = problem.values + number * problem.pixels;
    LovaszRow row(problem.errors, plane, in_row, step, problem.pixels, share_rows ? 1 : arguments.threads);
    if (c < problem.first_class) return row.clear();
    row.run();
    const std::int64_t element = problem.element(image, c);
    elements[element] = static_cast<float>(row.value);
    valid[element] = (problem.absent ? row.valid : row.positives) > 0 ? 1.0f : 0.0f;
  });
}

void lovasz_chain(const Arguments& arguments) {
  Probabilities(Problem(arguments, arguments.tensor(4))).differentiate();
}

}  // namespace

void add_lovasz(Table& table) {
  table.add("lovasz", lovasz);
  table.add("lovasz_chain", lovasz_chain);
}

}  // namespace lossatlas::LOSSATLAS_ISA
