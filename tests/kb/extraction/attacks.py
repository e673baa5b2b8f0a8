import os, socket
def echo(file, *, limits): return file.read()
def look(file, *, limits):
    out=[]
    for f in (lambda: open("/etc/passwd").read(), lambda: os.listdir("/"), lambda: socket.socket(), lambda: os.fork(), lambda: os.kill(os.getppid(),0), lambda: os.execv("/bin/true",["true"]), lambda: open("/proc/self/status").read(), lambda: str((os.getresuid(), os.environ, os.getcwd()))):
        try: out.append(repr(f())[:100])
        except BaseException as e: out.append(repr(e))
    return "\n".join(out).encode()
