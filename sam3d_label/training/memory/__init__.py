"""Memory of a training run: free memory of the device, the peak of a step, and the plan that follows."""
