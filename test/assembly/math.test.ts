import { instantiateSync } from '@assemblyscript/loader'
