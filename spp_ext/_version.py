"""The version of spp_ext; the build reads it from here."""

__version__ = "0.1.0"
