# The types that Cython needs to compile _landing.py.

cimport cython


cdef extern from "Python.h":
    object PyBytes_FromStringAndSize(char *content, Py_ssize_t size)
    char *PyBytes_AS_STRING(object content)
    object PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags)
    const int PyBUF_WRITE


cdef extern from *:
    """
    /* True when a list's bytes are nobody else's: then they are as if they had just been made, without a hash. */
    static int renew(PyObject *kept, Py_ssize_t index) {
    #ifdef Py_GIL_DISABLED
        return 0;  /* nobody can tell there */
    #else
        PyObject *content = PyList_GET_ITEM(kept, index);
        if (Py_REFCNT(content) != 1)
            return 0;
        _Py_COMP_DIAG_PUSH
        _Py_COMP_DIAG_IGNORE_DEPR_DECLS
        ((PyBytesObject *)content)->ob_shash = -1;
        _Py_COMP_DIAG_POP
        return 1;
    #endif
    }
    """
    bint renew(list kept, Py_ssize_t index)


cdef inline object new_memory(Py_ssize_t size):  # not filled with zeros first
    return PyBytes_FromStringAndSize(NULL, size)


cdef inline object writable(object memory):  # valid as long as the memory
    return PyMemoryView_FromMemory(PyBytes_AS_STRING(memory), len(memory), PyBUF_WRITE)


cdef class Landing:
    cdef public object _memory
    cdef public object _room
    cdef public Py_ssize_t received
    cdef public Py_ssize_t size

    @cython.locals(count=Py_ssize_t)
    cpdef Py_ssize_t fill(self, Py_ssize_t size) except -1
    @cython.locals(count=Py_ssize_t)
    cpdef Py_ssize_t add(self, data) except -1
    cpdef bytes take(self)


cdef class Spare:
    cdef public bint _asked
    cdef public list _kept

    @cython.locals(index=Py_ssize_t)
    cpdef Landing landing(self, Py_ssize_t size)
    cpdef object keep(self, bytes data)
    cpdef bint tidy(self)
