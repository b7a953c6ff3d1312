"""The network: the graph of layers, backpropagation through it, and the objective at its end."""
