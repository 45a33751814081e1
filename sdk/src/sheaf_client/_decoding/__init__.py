"""Decodes image and sound files into arrays: one reading, for answers at a client and requests at a server.

`_formats` tells by headers alone what a file is and how large; what is here hands it to a decoder. Both say
what is wrong with a file by `BrokenFileError`, whose text is for the caller.
"""
