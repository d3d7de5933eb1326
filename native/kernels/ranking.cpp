// Ranking losses of average precision, aLRP and Rank & Sort: the positives sorted, and every negative looked up among them.
// The twins are in src/lossatlas/losses/ranking.py.
//
// H(x) = x / (2 delta) + 1/2, from 0 to 1. A negative j gives 1 to the positives that it beats by delta, which are the first
// `clear` of the sorted ones, and a number that is linear in its logit to those up to `near`. Both are additions to running
// sums over the positives, of which there are few; so is the way back. Negatives that lie below all positives are passed
// over.
#include "ranking.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

enum class Term { precision, interpolated, classification, localization, ranking, sorting };
// Running sums of some numbers: `before[i]` is the sum of the first i.
class Running {
 public:
  explicit Running(std::int64_t count) : before_(count + 1, 0.0) {}
  void set(std::int64_t i, double number) { before_[i + 1] = before_[i] + number; }
  double between(std::int64_t begin, std::int64_t end) const { return before_[end] - before_[begin]; }

 private:
  Array<double> before_;
};

// Tensors and numbers, in this order (src/lossatlas/kernels/ranking.py):
//
//   tensors  input, target, weight or nothing, all of one shape; upstream, value, gradient and normalizer as for elementwise
//            losses; errors of boxes, or nothing: the localisation is a loss of these errors, which are the input there, and
//            the logits take their place
//   numbers  the reduction, the ignored target, delta
class Ranking {
 public:
  Ranking(const Arguments& arguments, Term term)
      : arguments_(arguments),
        term_(term),
        reduction_(arguments),
        ignored_(static_cast<float>(arguments.number(1))),
        width_(2.0 * arguments.number(2)),
        delta_(arguments.number(2)),
        layout_({&arguments.tensor(term == Term::localization ? 7 : 0), &arguments.tensor(1), &arguments.tensor(2),
                 &arguments.tensor(term == Term::localization ? 0 : 7), reduction_.of_elements(3),
                 reduction_.of_elements(4), &arguments.tensor(5)}),
        tasks_((layout_.elements() + task_size - 1) / task_size),
        first_(tasks_, 0) {
    if (layout_.given(values)) check_storable(arguments.tensor(4));
    if (layout_.given(gradient)) check_storable(arguments.tensor(5));
  }

  void run() {
    count();
    gather();
    sort();
    compare_positives();
    if (term_ != Term::sorting) compare_negatives();
    if (term_ == Term::sorting) {
      by_quality().errors(arguments_.threads, [&](std::int64_t i, double error, double beaten) {
        loss_[i] = error;
        false_[i] = beaten;
        share_[i] = safe_divide(error, beaten);
      });
    } else {
      finish_terms();
    }
    double sum = 0.0;
    for (std::int64_t i = 0; i < positives_; ++i) {
      result_[number_[i]] = weight_[i] * loss_[i];
      sum += weight_[i] * loss_[i];
    }
    if (layout_.given(values)) write(values, nullptr);
    // The whole is one task, as all depends on all; its parts are done by threads.
    const double divisor = reduction_.divisor([&] { return static_cast<double>(positives_); });
    reduction_.run(1, divisor, [&](std::int64_t, double factor) {
      if (layout_.given(gradient)) differentiate(factor);
      return intact_ ? sum : static_cast<double>(__builtin_nanf(""));
    });
  }

 private:
  enum Operand { logits, target, weight, other, upstream, values, gradient };

  static constexpr std::int64_t task_size = 32 * block_size;

  template <class Body>
  void for_tasks(const Body& body) const {
    parallel(tasks_, arguments_.threads, body);
  }

  // Count the positives, and whether anything that counts is not a number, which comparisons would hide.
  void count() {
    const Array<std::int64_t> broken(tasks_, 0);
    for_tasks([&](std::int64_t task) {
      Block x_buffer, y_buffer;
      std::int32_t found = 0, odd = 0;
      for_blocks(task, task_size, layout_.elements(), block_size, [&](std::int64_t begin, int size) {
        const float* x = layout_.load(logits, begin, size, x_buffer);
        const float* y = layout_.load(target, begin, size, y_buffer);
        for (int i = 0; i < size; ++i) {
          const bool counts = y[i] != ignored_;
          found += counts & (y[i] > 0.0f);
          odd += counts & ((x[i] != x[i]) | (y[i] != y[i]));
        }
      });
      first_[task] = found;
      broken[task] = odd;
    });
    for (std::int64_t task = 0; task < tasks_; ++task) {
      const std::int64_t here = first_[task];
      first_[task] = positives_;
      positives_ += here;
      intact_ = intact_ && broken[task] == 0;
    }
  }

  // Bring what is known of the positives, in the order of memory, side by side.
  void gather() {
    Array<double>* const arrays[] = {&logit_, &weight_, &other_, &quality_, &upstream_, &false_,
                                     &true_,  &wrong_,  &loss_,  &share_,   &push_,     &result_};
    for (Array<double>* array : arrays) array->allocate(positives_);
    number_.allocate(positives_);
    items_[0].allocate(positives_);
    items_[1].allocate(positives_);
    for_tasks([&](std::int64_t task) {
      std::int64_t next = first_[task];
      Block buffers[5];
      for_blocks(task, task_size, layout_.elements(), block_size, [&](std::int64_t begin, int size) {
        const float* x = layout_.load(logits, begin, size, buffers[0]);
        const float* y = layout_.load(target, begin, size, buffers[1]);
        const float* w = layout_.given(weight) ? layout_.load(weight, begin, size, buffers[2]) : nullptr;
        const float* e = layout_.given(other) ? layout_.load(other, begin, size, buffers[3]) : nullptr;
        const float* u = layout_.given(upstream) ? layout_.load(upstream, begin, size, buffers[4]) : nullptr;
        for (int i = 0; i < size; ++i) {
          if (!((y[i] != ignored_) & (y[i] > 0.0f))) continue;
          const std::int32_t bits = __builtin_bit_cast(std::int32_t, x[i] + 0.0f);
          const std::uint32_t key = static_cast<std::uint32_t>(bits) ^ (bits < 0 ? 0xffffffffu : 0x80000000u);
          items_[0][next] = static_cast<Item>(key) << 32 | static_cast<Item>(next);
          logit_[next] = x[i];
          quality_[next] = y[i];
          weight_[next] = w == nullptr ? 1.0 : w[i];
          other_[next] = e == nullptr ? 0.0 : e[i];
          upstream_[next] = u == nullptr ? 1.0 : u[i];
          ++next;
        }
      });
    });
  }

  // Order the positives by their logits, from the lowest on; `number_` is where each stands in memory.
  void sort() {
    int current = 0;
    for (int shift = 32; shift < 64; shift += 8) {
      std::int64_t starts[257] = {};
      for (std::int64_t i = 0; i < positives_; ++i) ++starts[((items_[current][i] >> shift) & 255) + 1];
      for (int k = 0; k < 256; ++k) starts[k + 1] += starts[k];
      for (std::int64_t i = 0; i < positives_; ++i) {
        const Item item = items_[current][i];
        items_[1 - current][starts[(item >> shift) & 255]++] = item;
      }
      current = 1 - current;
    }
    for (std::int64_t i = 0; i < positives_; ++i) number_[i] = static_cast<std::int64_t>(items_[current][i] & 0xffffffffu);
    Array<double>* const arrays[] = {&logit_, &weight_, &other_, &quality_, &upstream_};
    for (Array<double>* array : arrays) {
      for (std::int64_t i = 0; i < positives_; ++i) result_[i] = (*array)[number_[i]];
      for (std::int64_t i = 0; i < positives_; ++i) (*array)[i] = result_[i];
    }
    ladder_.set(logit_.begin(), positives_);
  }

  // Sum what each positive is beaten by among the positives, and the errors of these.
  void compare_positives() {
    Running count(positives_), moment(positives_), amount(positives_), leverage(positives_);
    for (std::int64_t i = 0; i < positives_; ++i) {
      moment.set(i, logit_[i]);
      amount.set(i, other_[i]);
      leverage.set(i, other_[i] * logit_[i]);
    }
    for (std::int64_t i = 0; i < positives_; ++i) {
      const double s = logit_[i];
      const std::int64_t begin = ladder_.below(s - delta_), end = ladder_.below(s + delta_);
      const double near = static_cast<double>(end - begin), errors = amount.between(begin, end);
      true_[i] = static_cast<double>(positives_ - end) + near / 2 + (moment.between(begin, end) - s * near) / width_;
      wrong_[i] = amount.between(end, positives_) + errors / 2 + (leverage.between(begin, end) - s * errors) / width_;
    }
  }

  // Sum what each positive is beaten by among the negatives.
  void compare_negatives() {
    for (std::int64_t i = 0; i < positives_; ++i) false_[i] = 0.0;
    if (positives_ == 0) return;
    // The sums of all parts together are no more than the elements.
    const std::int64_t most = layout_.elements() / (3 * (positives_ + 1));
    const std::int64_t limit = most < 1 ? 1 : (most < 64 ? most : 64), parts = limit < tasks_ ? limit : tasks_;
    const std::int64_t size = positives_ + 1;
    const Array<double> sums(parts * 3 * size, 0.0);
    parallel(parts, arguments_.threads, [&](std::int64_t part) {
      double* const above = sums.begin() + part * 3 * size;  // changes of: negatives that are above by delta,
      double* const between = above + size;                  // negatives that are near,
      double* const moment = between + size;                 // and their logits
      Block x_buffer, y_buffer;
      Found found;
      for (std::int64_t task = part * tasks_ / parts; task < (part + 1) * tasks_ / parts; ++task) {
        for_blocks(task, task_size, layout_.elements(), block_size, [&](std::int64_t begin, int count) {
          ladder_.look_up(layout_.load(logits, begin, count, x_buffer), layout_.load(target, begin, count, y_buffer),
                          count, ignored_, delta_, found);
          for (int i = 0; i < found.count; ++i) {
            const std::int64_t clear = found.clear[i], near = found.near[i];
            above[0] += 1.0;
            above[clear] -= 1.0;
            between[clear] += 1.0;
            between[near] -= 1.0;
            moment[clear] += found.logit[i];
            moment[near] -= found.logit[i];
          }
        });
      }
    });
    double above = 0.0, between = 0.0, moment = 0.0;
    for (std::int64_t i = 0; i < positives_; ++i) {
      for (std::int64_t part = 0; part < parts; ++part) {
        const double* const changes = sums.begin() + part * 3 * size;
        above += changes[i];
        between += changes[size + i];
        moment += changes[2 * size + i];
      }
      moment = between == 0.0 ? 0.0 : moment;
      const double sum = above + between / 2 + (moment - logit_[i] * between) / width_;
      false_[i] = sum > 0.0 ? sum : 0.0;
    }
  }

  // The term of each positive, and how much of it each of those that beat it has to answer for.
  void finish_terms() {
    double best = 0.0;
    for (std::int64_t i = 0; i < positives_; ++i) {
      const double beaten = false_[i], rank = true_[i] + 0.5 + beaten, others = wrong_[i] - other_[i] / 2;
      double loss = beaten / rank, share = safe_divide(loss, beaten);
      if (term_ == Term::interpolated) {
        best = 1.0 - loss > best ? 1.0 - loss : best;
        loss = 1.0 - best;
        share = safe_divide(loss, beaten);
      } else if (term_ == Term::classification) {
        share = beaten > 1e-5 ? (beaten + others) / rank / beaten : 0.0;
      } else if (term_ == Term::localization) {
        loss = (other_[i] + others) / rank;
        share = 1.0 / rank;
      } else if (term_ == Term::ranking) {
        share = 1.0 / (rank - 0.5);
        loss = share * beaten;
      }
      loss_[i] = loss;
      share_[i] = share;
    }
  }

  ByQuality by_quality() const { return {logit_.begin(), quality_.begin(), positives_, delta_, ladder_}; }

  void differentiate(double factor) {
    push(factor);
    const Beats beats(*this);
    write(gradient, term_ == Term::sorting || term_ == Term::localization ? nullptr : &beats);
  }

  // How far each positive is pushed up, and what pushes it down among the positives.
  void push(double factor) {
    for (std::int64_t i = 0; i < positives_; ++i) push_[i] = factor * weight_[i] * upstream_[i] * share_[i];
    if (term_ == Term::sorting) {
      by_quality().update(push_.begin(), false_.begin(), arguments_.threads,
                          [&](std::int64_t i, double update) { result_[number_[i]] = update; });
    } else if (term_ == Term::localization) {
      const Beats beats(*this);
      for (std::int64_t k = 0; k < positives_; ++k) {
        const double s = logit_[k];
        // The step at 0 counts half of a positive's own error, which counts in full.
        result_[number_[k]] = beats.sum(s, ladder_.below(s - delta_), ladder_.below(s + delta_)) + push_[k] / 2;
      }
    } else {
      for (std::int64_t i = 0; i < positives_; ++i) result_[number_[i]] = -push_[i] * false_[i];
    }
  }

  // What a logit has to answer for, of all the positives that it beats.
  struct Beats {
    explicit Beats(const Ranking& ranking)
        : width(ranking.width_), push(ranking.positives_), moment(ranking.positives_) {
      for (std::int64_t i = 0; i < ranking.positives_; ++i) {
        push.set(i, ranking.push_[i]);
        moment.set(i, ranking.push_[i] * ranking.logit_[i]);
      }
    }

    double sum(double logit, std::int64_t clear, std::int64_t near) const {
      const double between = push.between(clear, near);
      return push.between(0, clear) + between / 2 + (logit * between - moment.between(clear, near)) / width;
    }

    double width;
    Running push, moment;
  };

  // Write the results of the positives and, where they are pushed down, of the negatives.
  void write(Operand operand, const Beats* beats) const {
    for_tasks([&](std::int64_t task) {
      std::int64_t next = first_[task];
      Block x_buffer, y_buffer, out;
      Found found;
      for_blocks(task, task_size, layout_.elements(), block_size, [&](std::int64_t begin, int size) {
        const float* y = layout_.load(target, begin, size, y_buffer);
        for (int i = 0; i < size; ++i) out.values[i] = intact_ ? 0.0f : __builtin_nanf("");
        if (beats != nullptr && positives_ > 0 && intact_) {
          ladder_.look_up(layout_.load(logits, begin, size, x_buffer), y, size, ignored_, delta_, found);
          for (int i = 0; i < found.count; ++i) {
            out.values[found.place[i]] = static_cast<float>(beats->sum(found.logit[i], found.clear[i], found.near[i]));
          }
        }
        for (int i = 0; i < size; ++i) {
          if (!((y[i] != ignored_) & (y[i] > 0.0f))) continue;
          if (intact_) out.values[i] = static_cast<float>(result_[next]);
          ++next;
        }
        layout_.store(operand, begin, size, out.values);
      });
    });
  }

  using Item = std::uint64_t;

  const Arguments& arguments_;
  Term term_;
  Reduction reduction_;
  float ignored_;
  double width_, delta_;
  Layout<7> layout_;
  std::int64_t tasks_;
  Array<std::int64_t> first_;  // of the positives of each task
  std::int64_t positives_ = 0;
  bool intact_ = true;
  Array<Item> items_[2];
  Array<std::int64_t> number_;
  Array<double> logit_, weight_, other_, quality_, upstream_;        // of the sorted positives
  Array<double> false_, true_, wrong_, loss_, share_, push_;         // likewise
  Array<double> result_;                                             // of the positives in the order of memory
  Ladder ladder_;                                                    // the sorted logits
};

template <Term term>
void rank(const Arguments& arguments) {
  Ranking(arguments, term).run();
}

}  // namespace

void add_ranking(Table& table) {
  table.add("ap", rank<Term::precision>);
  table.add("interpolated_ap", rank<Term::interpolated>);
  table.add("alrp_classification", rank<Term::classification>);
  table.add("alrp_localization", rank<Term::localization>);
  table.add("rank_sort_ranking", rank<Term::ranking>);
  table.add("rank_sort_sorting", rank<Term::sorting>);
}

}  // namespace lossatlas::LOSSATLAS_ISA
