"""Networks: they know arrays and modules, but neither data nor losses nor training."""
