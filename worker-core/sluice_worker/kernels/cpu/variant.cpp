// Compiled once per instruction set, with SLUICE_ISA naming the namespace: plain, avx2 or avx512.
//
// An operation's header puts everything into `namespace sluice::SLUICE_ISA`, so that no function compiled for
// one instruction set is linked into another.

#include "registers.h"
#include "ops.h"
#include "team.h"

#include "attention.h"
#include "elementwise.h"
#include "linear.h"
#include "sampler.h"
#include "weight_pack.h"
#include "weight_quantize.h"

#define SLUICE_PASTE(a, b) a##b
#define SLUICE_NAME(isa) SLUICE_PASTE(isa, _variant)
#define SLUICE_STRING(isa) SLUICE_QUOTE(isa)
#define SLUICE_QUOTE(isa) #isa

namespace sluice {

#define SLUICE_ENTRY(name, parameters, arguments) SLUICE_ISA::name,
const Variant SLUICE_NAME(SLUICE_ISA) = {SLUICE_STRING(SLUICE_ISA), SLUICE_OPERATIONS(SLUICE_ENTRY)};

}  // namespace sluice
