"""The commands behind ``python -m spp_ext``. Each module is imported only when its command is asked for."""
