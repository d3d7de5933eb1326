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

  // Call body(begin, count) for the blocks of one task of an image.
  template <int Width, class Body>
  void for_blocks(std::int64_t task, std::int64_t task_size, const Body& body) const {
    const std::int64_t start = task * task_size;
    const std::int64_t end = start + task_size < pixels ? start + task_size : pixels;
    for (std::int64_t begin = start; begin < end; begin += Width) {
      body(begin, static_cast<int>(end - begin < Width ? end - begin : Width));
    }
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
template <int Width>
class Probabilities {
 public:
  explicit Probabilities(const Problem& problem) : p_(problem) {
    const std::int64_t blocks = 131072 / (p_.classes * Width);
    task_size_ = Width * (blocks < 1 ? 1 : blocks);
    tasks_ = (p_.pixels + task_size_ - 1) / task_size_;
  }

  void errors() const {
    const Partials wrong(p_.images * tasks_);
    parallel(p_.images * tasks_, p_.arguments.threads, [&](std::int64_t number) {
      const std::int64_t image = number / tasks_;
      Softmax<Width> softmax(p_.classes);
      Block buffer, index_buffer, valid;
      p_.template for_blocks<Width>(number % tasks_, task_size_, [&](std::int64_t begin, int count) {
        const float* index = load(softmax, image, begin, count, buffer, index_buffer, valid);
        std::int32_t outside = 0;
        for (int i = 0; i < Width; ++i) {
          const bool inside = (index[i] >= 0.0f) & (index[i] < static_cast<float>(p_.classes));
          outside += (valid.values[i] != 0.0f) & !inside;
        }
        *wrong[number] += outside;
        for (std::int64_t c = 0; c < p_.classes; ++c) {
          const std::int64_t shift = p_.shift(Problem::slopes, image, c);
          float* to = p_.layout.destination(Problem::slopes, begin, count, buffer, shift, Width);
          write_errors(softmax, c, valid.values, to);
          if (to == buffer.values) p_.layout.store(Problem::slopes, begin, count, to, shift);
        }
      });
    });
    if (wrong.total() != 0.0) throw Error{"a class index is out of range"};
  }

  // Turn slopes in probabilities into the gradient of the logits, which may lie in the same memory.
  void differentiate() const {
    const float* const upstream = p_.arguments.tensor(3).floats(p_.elements());
    check_storable(p_.arguments.tensor(4));
    parallel(p_.images * tasks_, p_.arguments.threads, [&](std::int64_t number) {
      const std::int64_t image = number / tasks_;
      Softmax<Width> softmax(p_.classes);
      const Array<float> steep(p_.classes * Width, 0.0f);
      Block buffer, index_buffer, valid, drift;
      p_.template for_blocks<Width>(number % tasks_, task_size_, [&](std::int64_t begin, int count) {
        load(softmax, image, begin, count, buffer, index_buffer, valid);
        for (int i = 0; i < Width; ++i) drift.values[i] = 0.0f;
        for (std::int64_t c = p_.first_class; c < p_.classes; ++c) {
          const float* slopes =
              p_.layout.load(Problem::slopes, begin, count, buffer, p_.shift(Problem::slopes, image, c), Width);
          weigh(softmax, c, slopes, upstream[p_.element(image, c)], steep.begin() + c * Width, drift.values);
        }
        for (std::int64_t c = 0; c < p_.classes; ++c) {
          const std::int64_t shift = p_.shift(Problem::gradient, image, c);
          float* to = p_.layout.destination(Problem::gradient, begin, count, buffer, shift, Width);
          write_gradient(softmax, c, steep.begin() + c * Width, drift.values, valid.values, to);
          if (to == buffer.values) p_.layout.store(Problem::gradient, begin, count, to, shift);
        }
      });
    });
  }

 private:
  // The softmax of a block; returns the indices.
  const float* load(Softmax<Width>& softmax, std::int64_t image, std::int64_t begin, int count, Block& buffer,
                    Block& index_buffer, Block& valid) const {
    const float* index =
        p_.layout.load(Problem::target, begin, count, index_buffer, p_.shift(Problem::target, image, 0), Width);
    for (int i = 0; i < Width; ++i) valid.values[i] = (index[i] != p_.ignored) & (i < count) ? 1.0f : 0.0f;
    softmax.compute(index, valid.values, [&](std::int64_t c) {
      return p_.layout.load(Problem::input, begin, count, buffer, p_.shift(Problem::input, image, c), Width);
    });
    return index;
  }

  static void write_errors(const Softmax<Width>& softmax, std::int64_t c, const float* __restrict valid,
                           float* __restrict to) {
    const float* __restrict e = softmax.exponentials(c);
    const float own = static_cast<float>(c);
    for (int i = 0; i < Width; ++i) {
      const bool is_own = softmax.is_true(i, own);
      to[i] = mark(is_own ? softmax.miss[i] : e[i] * softmax.scale[i], is_own, valid[i] != 0.0f);
    }
  }

  static void weigh(const Softmax<Width>& softmax, std::int64_t c, const float* __restrict slopes, float upstream,
                    float* __restrict steep, float* __restrict drift) {
    const float* __restrict e = softmax.exponentials(c);
    for (int i = 0; i < Width; ++i) {
      steep[i] = slopes[i] * upstream;
      drift[i] += e[i] * softmax.scale[i] * steep[i];
    }
  }

  static void write_gradient(const Softmax<Width>& softmax, std::int64_t c, const float* __restrict steep,
                             const float* __restrict drift, const float* __restrict valid, float* __restrict to) {
    const float* __restrict e = softmax.exponentials(c);
    for (int i = 0; i < Width; ++i) {
      const float slope = e[i] * softmax.scale[i] * (steep[i] - drift[i]);
      to[i] = valid[i] != 0.0f ? slope : 0.0f;
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
      p_.for_blocks<block_size>(number % tasks, task_size, [&](std::int64_t begin, int count) {
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
  } else if (problem.classes <= 64) {
    Probabilities<wide>(problem).errors();
  } else {
    Probabilities<narrow>(problem).errors();
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
  const Problem problem(arguments, arguments.tensor(4));
  if (problem.classes <= 64) {
    Probabilities<wide>(problem).differentiate();
  } else {
    Probabilities<narrow>(problem).differentiate();
  }
}

}  // namespace

void add_lovasz(Table& table) {
  table.add("lovasz", lovasz);
  table.add("lovasz_chain", lovasz_chain);
}

}  // namespace lossatlas::LOSSATLAS_ISA
