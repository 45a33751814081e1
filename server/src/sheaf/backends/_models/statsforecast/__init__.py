"""What the library's fitted models say of the future: one module for each kind of recursion.

The library fits; points, quantiles and paths are computed here, all three from the one recursion of the
fitted model, so that they agree. The library's own differ from it in places, which the modules name.
"""
