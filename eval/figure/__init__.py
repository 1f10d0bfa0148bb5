"""The paper's figures from the runs of several arms: which runs belong together, their means, and the pictures."""
