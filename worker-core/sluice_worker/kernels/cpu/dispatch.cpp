// The library's C interface: each operation goes to the best variant this CPU can run.

#include <cstdlib>
#include <cstring>

#include "ops.h"
#include "team.h"

namespace sluice {
namespace {

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}
#endif

// SLUICE_CPU_ISA forces a variant, for tests; one that this CPU cannot run gives `plain`.
const Variant& choose() {
#if defined(__x86_64__)
  const char* wanted = std::getenv("SLUICE_CPU_ISA");
  const auto allowed = [wanted](const Variant& variant) {
    return !wanted || !std::strcmp(wanted, variant.name);
  };
  if (allowed(avx512_variant) && has_avx512()) return avx512_variant;
  if (allowed(avx2_variant) && has_avx2()) return avx2_variant;
#endif
  return plain_variant;
}

}  // namespace

const Variant& variant() {
  static const Variant& chosen = choose();
  return chosen;
}

}  // namespace sluice

extern "C" {

__attribute__((visibility("default"))) const char* sluice_isa() { return sluice::variant().name; }
__attribute__((visibility("default"))) void sluice_set_threads(int64_t threads) {
  sluice::set_threads(static_cast<int>(threads));
}

__attribute__((visibility("default"))) void sluice_decode(const void* step) {
  sluice::decode(*static_cast<const sluice::DecoderStep*>(step));
}

#define SLUICE_EXPORT(name, parameters, arguments) \
  __attribute__((visibility("default"))) void sluice_##name parameters { sluice::variant().name arguments; }
SLUICE_OPERATIONS(SLUICE_EXPORT)
}
