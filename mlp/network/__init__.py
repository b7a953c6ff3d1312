"""The network: the graph of layers, backpropagation through it, and the objective at its end.

graph.py             which layer feeds which, the layout of the parameters w
backpropagation.py   equations (1)-(6), forward and backward through the graph
objective.py         the loss and the penalties: value, gradient, predictions
"""
