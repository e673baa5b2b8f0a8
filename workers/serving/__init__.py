"""The parts of the model server; workers/model_server.py puts them together.

bodies → what a client asks for · app → routes and streams · shapes → answers in TGI's form ·
engine → the one thread that owns the model · adapters, sampling, detokenizing → its tools.
"""
