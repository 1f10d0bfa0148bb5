// All of our kernels as one library: what they share is compiled once.

#include "few_blocks.c"
#include "few_rows.c"
