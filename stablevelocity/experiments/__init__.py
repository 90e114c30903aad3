"""The small experiments of the study: toy, variance curves, accuracy of the schedulers."""
