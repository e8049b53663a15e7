"""Training: data, the loop over an emitted or an autograd backward, evaluation, sampling, checkpoints."""
