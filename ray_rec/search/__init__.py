"""Search for the hyper-parameters of a model: what may vary, what a trial is worth, Ray Tune."""
