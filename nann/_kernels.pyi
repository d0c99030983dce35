from nann.kernels_numpy import count as count
from nann.kernels_numpy import expand as expand
from nann.kernels_numpy import expand_through as expand_through
from nann.kernels_numpy import gather_rows as gather_rows
from nann.kernels_numpy import light_scan as light_scan
from nann.kernels_numpy import light_walk as light_walk
from nann.kernels_numpy import mark as mark
from nann.kernels_numpy import merge_top as merge_top
