// All of our kernels as one library: what they share is compiled once.

#include "draws.c"
#include "few_blocks.c"
#include "few_rows.c"
#include "few_tokens.c"
