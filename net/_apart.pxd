# The types that Cython needs to compile _apart.py. Attributes are `public` because Python code uses them, too.


cdef class Apart:
    cdef public object body
    cdef public bytes head
    cdef public Py_ssize_t size
