"""What is registered with torch: ops, autograd Functions, fakes, shardings; and what is private of torch.

A call comes down one stair. Each module knows only those below it; a graph enters at `registration`.

    choose_path     eager, compiled or transformed: which of the following a call takes
    compositions    torch's own ops instead, for whoever knows no others
    registration    the ops as the dispatcher has them, for graphs: derivatives, results without data (`fakes`), and
                    what they cost (`flops`)
    fakes, checks   those results, and what is asked of arguments for them, in the kernels' words
    functions       autograd Functions: pool, gather and scatter, and how each is differentiated
    batching        vmap's dimension, folded into images and rows
    kernels         the registered ops without their derivatives: what finally runs
    library         the files: whether they are whole, of this version, and loaded
    op_table        the table of ops, and what a call of one is made of
    captures        who is looking: the tools that record calls
    layouts, errors, private    strides, exceptions, and torch's private parts

`dtensor` and `onnx` are imported only where they are needed.
"""
