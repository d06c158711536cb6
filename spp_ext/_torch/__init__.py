"""What is registered with torch: ops, autograd Functions, fakes, shardings; and what is private of torch.

A call comes down one stair. Each module knows only those below it; a graph enters at `registration`.

    choose_path     eager, compiled or transformed: which of the following a call takes
    compositions    torch's own ops instead, for whoever knows no others
    registration    the ops as the dispatcher has them, for graphs: derivatives, and results without data (`fakes`),
                    and what they cost (`flops`)
    functions       autograd Functions: pool, gather and scatter, and how each is differentiated
    batching        vmap's dimension, folded into images and rows
    kernels         the registered ops without their derivatives: what finally runs
    op_table        the table of ops, and what a call of one is made of
    captures        who is looking: the tools that record calls
    layouts, errors, library, private    strides, exceptions, files, and torch's private parts

`dtensor` and `onnx` are imported only where they are needed.
"""
