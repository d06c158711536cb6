"""What is registered with torch: ops, autograd Functions, fakes, shardings; and what is private of torch.

A call comes down one stair. Each module knows only those below it; a graph enters at `registration`.

    choose_path     eager, compiled or transformed: which of the following a call takes
    registration    the ops as the dispatcher has them, for graphs: derivatives, and results without data
    fakes, checks   those results, and what is asked of arguments for them, in the kernels' words
    functions       autograd Functions: pool, gather and scatter, and how each is differentiated
    batching        vmap's dimension, folded into images and rows
    kernels         the registered ops without their derivatives: what finally runs
    library         the files: whether they are whole, of this version, and loaded
    op_table        the table of ops, and what a call of one is made of
    layouts, errors, private    strides, exceptions, and torch's private parts

`dtensor` and `onnx` are imported only where they are needed.
"""
