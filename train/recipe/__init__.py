"""LayerSkip's recipe (paper, s. 4): the dropout schedule, the curriculum of exits, their weights, and the loss."""
