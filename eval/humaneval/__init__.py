"""HumanEval (Chen et al. 2021, arXiv 2107.03374): its problems, its protocol, and pass@k by execution."""
