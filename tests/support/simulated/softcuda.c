/* softcuda: a software libcuda.so.1 for tests on machines with no GPU.
 *
 * It implements the documented CUDA driver API calls that pycuda's driver module uses for memory, streams, events and
 * contexts, on plain host memory. It runs no kernel. It is deliberately STRICT and LAZY, to make wrong host code fail:
 *   - a call with no current context on the calling thread fails (CUDA_ERROR_INVALID_CONTEXT), as on a GPU;
 *   - work put on a stream runs only when somebody waits for it (stream/event/context synchronise, or a query), so a
 *     missing synchronise, or a host buffer reused too early, shows as wrong data every time, not once in a while;
 *   - device pointers are checked against live allocations (bounds, use after free, double free);
 *   - memory is counted against a small total, so leaks and out-of-memory are testable;
 *   - faults can be injected: softcuda_fail("cuMemAlloc", code, after_n); codes 700..719 are sticky like on a GPU.
 * Extra exports (soft_*): enqueue a host callback on a stream in order (the simulated TensorRT enqueue), counters.
 */
#define _GNU_SOURCE
#include <cuda.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define EXPORT __attribute__((visibility("default")))
#define MAXCTX 32

typedef void (*soft_fn)(void*);
typedef struct op { struct op* next; int kind; void* dst; const void* src; size_t n; int v; soft_fn fn; void* arg; struct ev* e; uint64_t seq; } op; /* kind 0 copy 1 set8 2 callback 3 event 4 wait */
typedef struct ev { int recorded, done; struct timespec t; struct st* owner; uint64_t seq; int timing; uint64_t mark; } ev;
typedef struct st { struct st* next; struct cx* c; op *head, *tail; int running; uint64_t seq; unsigned flags; } st;
typedef struct al { struct al* next; uintptr_t p; size_t n; int kind; struct cx* c; } al; /* kind 0 device 1 pinned 2 managed 3 registered */
typedef struct cx { int live, primary, refs; CUdevice d; st* streams; st null; CUresult sticky; } cx;

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER; /* API state; never held while a callback runs */
static int inited; static cx* ctxs[MAXCTX]; static int nctx; static cx primary; static al* allocs;
static size_t used, pinned_used;
static __thread cx* stack[16]; static __thread int sp;
static struct { char name[48]; int code; long after; int on; } fault[8];
EXPORT long soft_async_pageable, soft_calls_total; /* copies that would not have been asynchronous on a GPU */

static size_t total(void){ const char* s=getenv("SOFTCUDA_TOTAL_MEM"); return s?strtoull(s,0,10):(size_t)8<<30; }
static CUresult pre(const char* name,int need){
  soft_calls_total++;
  if(!inited) return CUDA_ERROR_NOT_INITIALIZED;
  for(int i=0;i<8;i++) if(fault[i].on&&!strcmp(fault[i].name,name)){ if(fault[i].after-->0) continue; int c=fault[i].code; if(c<700||c>719) fault[i].on=0; else if(sp) stack[sp-1]->sticky=c; return c; }
  if(need){ if(!sp) return CUDA_ERROR_INVALID_CONTEXT; if(!stack[sp-1]->live) return CUDA_ERROR_CONTEXT_IS_DESTROYED; if(stack[sp-1]->sticky) return stack[sp-1]->sticky; }
  return CUDA_SUCCESS; }
#define PRE(n,need) pthread_mutex_lock(&mu); CUresult r_=pre(n,need); if(r_){ pthread_mutex_unlock(&mu); return r_; } cx* cur=sp?stack[sp-1]:0; (void)cur
#define RET(x) do{ CUresult q_=(x); pthread_mutex_unlock(&mu); return q_; }while(0)
static al* find(uintptr_t p,size_t n){ for(al* a=allocs;a;a=a->next) if(p>=a->p&&p+n<=a->p+a->n) return a; return 0; }
static int devptr(uintptr_t p,size_t n){ al* a=find(p,n); return a!=0; }
static st* sget(cx* c,CUstream s){ if(!s||s==CU_STREAM_LEGACY||s==CU_STREAM_PER_THREAD) return &c->null; for(st* x=c->streams;x;x=x->next) if((CUstream)x==s) return x; return 0; }
static void drain(st* s,uint64_t upto){ /* mu held; runs ops in order up to seq */
  while(s->running){ pthread_mutex_unlock(&mu); struct timespec t={0,200000}; nanosleep(&t,0); pthread_mutex_lock(&mu); }
  s->running=1;
  while(s->head&&s->head->seq<=upto){ op* o=s->head; s->head=o->next; if(!s->head) s->tail=0;
    switch(o->kind){
      case 0: if(!s->c->sticky){ if(!devptr((uintptr_t)o->dst,o->n)&&!devptr((uintptr_t)o->src,o->n)) s->c->sticky=CUDA_ERROR_ILLEGAL_ADDRESS; else memcpy(o->dst,o->src,o->n);} break;
      case 1: if(!s->c->sticky){ if(!devptr((uintptr_t)o->dst,o->n)) s->c->sticky=CUDA_ERROR_ILLEGAL_ADDRESS; else memset(o->dst,o->v,o->n);} break;
      case 2: if(!s->c->sticky){ soft_fn f=o->fn; void* a=o->arg; pthread_mutex_unlock(&mu); f(a); pthread_mutex_lock(&mu);} break;
      case 3: if(o->e->mark==o->seq){ clock_gettime(CLOCK_MONOTONIC,&o->e->t); o->e->done=1; } break;
      case 4: { st* w=o->e->owner; if(w&&w!=s&&!o->e->done&&!w->running) drain(w,o->e->mark); } break; }
    free(o); }
  s->running=0; }
static void push(st* s,op o){ op* n=malloc(sizeof o); *n=o; n->next=0; n->seq=++s->seq; if(s->tail) s->tail->next=n; else s->head=n; s->tail=n; }
static void drop(st* s){ while(s->head){ op* o=s->head; s->head=o->next; free(o);} s->tail=0; }
#define PRE_FREE(n) pthread_mutex_lock(&mu); CUresult r_=pre(n,1); cx* cur=sp?stack[sp-1]:0; if(r_&&!(cur&&cur->sticky)){ pthread_mutex_unlock(&mu); return r_; }
static int eager(void){ static int e=-1; if(e<0){ const char* s=getenv("SOFTCUDA_EAGER"); e=s&&*s=='1'; } return e; }

EXPORT CUresult CUDAAPI cuInit(unsigned f){ const char* n=getenv("SOFTCUDA_DEVICES"); if(n&&!atoi(n)) return CUDA_ERROR_NO_DEVICE; inited=1; return CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuDriverGetVersion(int* v){ *v=CUDA_VERSION; return CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuGetErrorString(CUresult e,const char** s){ static __thread char b[32]; snprintf(b,32,"CUDA error %d",(int)e); *s=b; return CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuGetErrorName(CUresult e,const char** s){ return cuGetErrorString(e,s); }
EXPORT CUresult CUDAAPI cuDeviceGetCount(int* n){ PRE("cuDeviceGetCount",0); *n=1; RET(0); }
EXPORT CUresult CUDAAPI cuDeviceGet(CUdevice* d,int i){ PRE("cuDeviceGet",0); if(i) RET(CUDA_ERROR_INVALID_DEVICE); *d=0; RET(0); }
EXPORT CUresult CUDAAPI cuDeviceGetName(char* s,int n,CUdevice d){ PRE("cuDeviceGetName",0); snprintf(s,n,"softcuda (no GPU: simulated Orin)"); RET(0); }
EXPORT CUresult CUDAAPI cuDeviceTotalMem(size_t* n,CUdevice d){ PRE("cuDeviceTotalMem",0); *n=total(); RET(0); }
EXPORT CUresult CUDAAPI cuDeviceComputeCapability(int* a,int* b,CUdevice d){ PRE("cuDeviceComputeCapability",0); *a=8;*b=7; RET(0); }
EXPORT CUresult CUDAAPI cuDeviceGetAttribute(int* v,CUdevice_attribute a,CUdevice d){ PRE("cuDeviceGetAttribute",0);
  switch(a){ case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:*v=8;break; case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:*v=7;break; case CU_DEVICE_ATTRIBUTE_INTEGRATED:*v=1;break; case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:*v=1;break; case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:*v=8;break; case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:*v=1;break; default:*v=0; } RET(0); }
EXPORT CUresult CUDAAPI cuCtxCreate(CUcontext* c,CUctxCreateParams* p,unsigned f,CUdevice d){ PRE("cuCtxCreate",0); if(nctx==MAXCTX||sp==16) RET(CUDA_ERROR_OUT_OF_MEMORY); cx* x=calloc(1,sizeof *x); x->live=1;x->refs=1;x->null.c=x; ctxs[nctx++]=x; stack[sp++]=x; *c=(CUcontext)x; RET(0); }
static void kill_ctx(cx* x){ x->live=0; for(al** a=&allocs;*a;){ if((*a)->c==x){ al* k=*a; *a=k->next; if(k->kind!=3){ if(k->kind==1) pinned_used-=k->n; else used-=k->n; free((void*)k->p);} free(k);} else a=&(*a)->next; } x->streams=0; }
EXPORT CUresult CUDAAPI cuCtxDestroy(CUcontext c){ PRE("cuCtxDestroy",0); cx* x=(cx*)c; if(!x||!x->live) RET(CUDA_ERROR_INVALID_CONTEXT); if(sp&&stack[sp-1]==x) sp--; kill_ctx(x); RET(0); }
EXPORT CUresult CUDAAPI cuCtxDetach(CUcontext c){ return cuCtxDestroy(c); }
EXPORT CUresult CUDAAPI cuCtxAttach(CUcontext* c,unsigned f){ PRE("cuCtxAttach",1); cur->refs++; *c=(CUcontext)cur; RET(0); }
EXPORT CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* c,CUdevice d){ PRE("cuDevicePrimaryCtxRetain",0); primary.primary=1; if(!primary.refs++){ primary.live=1; primary.sticky=0; primary.null.c=&primary; } *c=(CUcontext)&primary; RET(0); }
EXPORT CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice d){ PRE("cuDevicePrimaryCtxRelease",0); if(!primary.refs) RET(CUDA_ERROR_INVALID_CONTEXT); if(!--primary.refs) kill_ctx(&primary); RET(0); }
EXPORT CUresult CUDAAPI cuCtxPushCurrent(CUcontext c){ PRE("cuCtxPushCurrent",0); cx* x=(cx*)c; if(!x||!x->live) RET(CUDA_ERROR_INVALID_CONTEXT); if(sp==16) RET(CUDA_ERROR_OUT_OF_MEMORY); stack[sp++]=x; RET(0); }
EXPORT CUresult CUDAAPI cuCtxPopCurrent(CUcontext* c){ PRE("cuCtxPopCurrent",0); if(!sp) RET(CUDA_ERROR_INVALID_CONTEXT); *c=(CUcontext)stack[--sp]; RET(0); }
EXPORT CUresult CUDAAPI cuCtxGetCurrent(CUcontext* c){ PRE("cuCtxGetCurrent",0); *c=sp?(CUcontext)stack[sp-1]:0; RET(0); }
EXPORT CUresult CUDAAPI cuCtxSetCurrent(CUcontext c){ PRE("cuCtxSetCurrent",0); if(!c){ if(sp) sp--; RET(0);} if(sp) stack[sp-1]=(cx*)c; else stack[sp++]=(cx*)c; RET(0); }
EXPORT CUresult CUDAAPI cuCtxGetDevice(CUdevice* d){ PRE("cuCtxGetDevice",1); *d=0; RET(0); }
EXPORT CUresult CUDAAPI cuCtxGetApiVersion(CUcontext c,unsigned* v){ *v=3020; return 0; }
EXPORT CUresult CUDAAPI cuCtxSynchronize(void){ PRE("cuCtxSynchronize",1); for(st* s=cur->streams;s;s=s->next) drain(s,~0ull); drain(&cur->null,~0ull); RET(cur->sticky); }

static CUresult alloc_(void** out,size_t n,int kind){ if(!n) return CUDA_ERROR_INVALID_VALUE; if(used+pinned_used+n>total()) return CUDA_ERROR_OUT_OF_MEMORY; void* p; if(posix_memalign(&p,512,(n+511)&~(size_t)511)) return CUDA_ERROR_OUT_OF_MEMORY; memset(p,0xA5,n); al* a=malloc(sizeof *a); *a=(al){allocs,(uintptr_t)p,n,kind,stack[sp-1]}; allocs=a; if(kind==1) pinned_used+=n; else used+=n; *out=p; return 0; }
static CUresult free_(uintptr_t p,int kinds){ for(al** a=&allocs;*a;a=&(*a)->next) if((*a)->p==p&&(kinds>>(*a)->kind&1)){ al* k=*a; for(st* s=k->c->streams;s;s=s->next) { if(k->c->sticky) drop(s); else if(!s->running) drain(s,~0ull); } *a=k->next; /* one that runs may need the interpreter that our caller holds */ if(k->kind==1) pinned_used-=k->n; else if(k->kind!=3) used-=k->n; if(k->kind!=3){ memset((void*)k->p,0xDD,k->n); free((void*)k->p);} free(k); return 0; } return CUDA_ERROR_INVALID_VALUE; }
EXPORT CUresult CUDAAPI cuMemAlloc(CUdeviceptr* p,size_t n){ PRE("cuMemAlloc",1); void* q=0; CUresult r=alloc_(&q,n,0); *p=(CUdeviceptr)q; RET(r); }
EXPORT CUresult CUDAAPI cuMemAllocManaged(CUdeviceptr* p,size_t n,unsigned f){ PRE("cuMemAllocManaged",1); void* q=0; CUresult r=alloc_(&q,n,2); *p=(CUdeviceptr)q; RET(r); }
EXPORT CUresult CUDAAPI cuMemFree(CUdeviceptr p){ PRE_FREE("cuMemFree") CUresult f_=free_(p,1|4); RET(r_?r_:f_); }
EXPORT CUresult CUDAAPI cuMemHostAlloc(void** p,size_t n,unsigned f){ PRE("cuMemHostAlloc",1); RET(alloc_(p,n,1)); }
EXPORT CUresult CUDAAPI cuMemFreeHost(void* p){ PRE_FREE("cuMemFreeHost") CUresult f_=free_((uintptr_t)p,2); RET(r_?r_:f_); }
EXPORT CUresult CUDAAPI cuMemHostGetDevicePointer(CUdeviceptr* d,void* p,unsigned f){ PRE("cuMemHostGetDevicePointer",1); al* a=find((uintptr_t)p,1); if(!a||a->kind==0) RET(CUDA_ERROR_INVALID_VALUE); *d=(CUdeviceptr)p; RET(0); }
EXPORT CUresult CUDAAPI cuMemHostGetFlags(unsigned* f,void* p){ *f=0; return 0; }
EXPORT CUresult CUDAAPI cuMemHostRegister(void* p,size_t n,unsigned f){ PRE("cuMemHostRegister",1); al* a=malloc(sizeof *a); *a=(al){allocs,(uintptr_t)p,n,3,cur}; allocs=a; RET(0); }
EXPORT CUresult CUDAAPI cuMemHostUnregister(void* p){ PRE_FREE("cuMemHostUnregister") CUresult f_=free_((uintptr_t)p,8); RET(r_?r_:f_); }
EXPORT CUresult CUDAAPI cuMemGetInfo(size_t* f,size_t* t){ PRE("cuMemGetInfo",1); *t=total(); *f=*t-used-pinned_used; RET(0); }
EXPORT CUresult CUDAAPI cuMemGetAddressRange(CUdeviceptr* b,size_t* n,CUdeviceptr p){ PRE("cuMemGetAddressRange",1); al* a=find(p,1); if(!a) RET(CUDA_ERROR_NOT_FOUND); *b=a->p; *n=a->n; RET(0); }

static CUresult copy(void* d,const void* s,size_t n,int ddev,int sdev,st* q,int async){ /* mu held */
  if(ddev&&!devptr((uintptr_t)d,n)) return CUDA_ERROR_INVALID_VALUE;
  if(sdev&&!devptr((uintptr_t)s,n)) return CUDA_ERROR_INVALID_VALUE;
  if(!q) return CUDA_ERROR_INVALID_HANDLE;
  if(async&&((!ddev&&!devptr((uintptr_t)d,n))||(!sdev&&!devptr((uintptr_t)s,n)))) soft_async_pageable++; /* the host side is not page-locked */
  push(q,(op){.kind=0,.dst=d,.src=s,.n=n}); if(!async||eager()){ drain(q,~0ull); } return q->c->sticky; }
EXPORT CUresult CUDAAPI cuMemcpyHtoD(CUdeviceptr d,const void* s,size_t n){ PRE("cuMemcpyHtoD",1); RET(copy((void*)d,s,n,1,0,&cur->null,0)); }
EXPORT CUresult CUDAAPI cuMemcpyDtoH(void* d,CUdeviceptr s,size_t n){ PRE("cuMemcpyDtoH",1); RET(copy(d,(void*)s,n,0,1,&cur->null,0)); }
EXPORT CUresult CUDAAPI cuMemcpyDtoD(CUdeviceptr d,CUdeviceptr s,size_t n){ PRE("cuMemcpyDtoD",1); RET(copy((void*)d,(void*)s,n,1,1,&cur->null,0)); }
EXPORT CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr d,const void* s,size_t n,CUstream q){ PRE("cuMemcpyHtoDAsync",1); RET(copy((void*)d,s,n,1,0,sget(cur,q),1)); }
EXPORT CUresult CUDAAPI cuMemcpyDtoHAsync(void* d,CUdeviceptr s,size_t n,CUstream q){ PRE("cuMemcpyDtoHAsync",1); RET(copy(d,(void*)s,n,0,1,sget(cur,q),1)); }
EXPORT CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr d,CUdeviceptr s,size_t n,CUstream q){ PRE("cuMemcpyDtoDAsync",1); RET(copy((void*)d,(void*)s,n,1,1,sget(cur,q),1)); }
EXPORT CUresult CUDAAPI cuMemsetD8(CUdeviceptr d,unsigned char v,size_t n){ PRE("cuMemsetD8",1); if(!devptr(d,n)) RET(CUDA_ERROR_INVALID_VALUE); memset((void*)d,v,n); RET(0); }
EXPORT CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr d,unsigned char v,size_t n,CUstream q){ PRE("cuMemsetD8Async",1); if(!devptr(d,n)) RET(CUDA_ERROR_INVALID_VALUE); st* s=sget(cur,q); if(!s) RET(CUDA_ERROR_INVALID_HANDLE); push(s,(op){.kind=1,.dst=(void*)d,.v=v,.n=n}); RET(0); }

EXPORT CUresult CUDAAPI cuStreamCreate(CUstream* s,unsigned f){ PRE("cuStreamCreate",1); st* x=calloc(1,sizeof *x); x->c=cur; x->flags=f; x->next=cur->streams; cur->streams=x; *s=(CUstream)x; RET(0); }
EXPORT CUresult CUDAAPI cuStreamDestroy(CUstream s){ PRE_FREE("cuStreamDestroy") for(st** x=&cur->streams;*x;x=&(*x)->next) if((CUstream)*x==s){ st* k=*x; if(cur->sticky) drop(k); else drain(k,~0ull); *x=k->next; free(k); RET(r_);} RET(CUDA_ERROR_INVALID_HANDLE); }
EXPORT CUresult CUDAAPI cuStreamSynchronize(CUstream s){ PRE("cuStreamSynchronize",1); st* x=sget(cur,s); if(!x) RET(CUDA_ERROR_INVALID_HANDLE); drain(x,~0ull); RET(cur->sticky); }
EXPORT CUresult CUDAAPI cuStreamQuery(CUstream s){ PRE("cuStreamQuery",1); st* x=sget(cur,s); if(!x) RET(CUDA_ERROR_INVALID_HANDLE); if(!x->head) RET(cur->sticky); op* o=x->head; drain(x,o->seq); RET(x->head?CUDA_ERROR_NOT_READY:CUDA_SUCCESS); } /* each poll lets one op finish */
EXPORT CUresult CUDAAPI cuStreamWaitEvent(CUstream s,CUevent e,unsigned f){ PRE("cuStreamWaitEvent",1); st* x=sget(cur,s); if(!x) RET(CUDA_ERROR_INVALID_HANDLE); push(x,(op){.kind=4,.e=(ev*)e}); RET(0); }
EXPORT CUresult CUDAAPI cuEventCreate(CUevent* e,unsigned f){ PRE("cuEventCreate",1); ev* x=calloc(1,sizeof *x); x->timing=!(f&CU_EVENT_DISABLE_TIMING); *e=(CUevent)x; RET(0); }
EXPORT CUresult CUDAAPI cuEventDestroy(CUevent e){ PRE("cuEventDestroy",1); RET(0); /* leaked on purpose: pending ops may still point at it */ }
EXPORT CUresult CUDAAPI cuEventRecord(CUevent e,CUstream s){ PRE("cuEventRecord",1); st* x=sget(cur,s); if(!x) RET(CUDA_ERROR_INVALID_HANDLE); ev* v=(ev*)e; v->recorded=1; v->done=0; v->owner=x; push(x,(op){.kind=3,.e=v}); v->mark=x->seq; RET(0); }
EXPORT CUresult CUDAAPI cuEventQuery(CUevent e){ PRE("cuEventQuery",1); ev* v=(ev*)e; RET(!v->recorded||v->done?CUDA_SUCCESS:CUDA_ERROR_NOT_READY); }
EXPORT CUresult CUDAAPI cuEventSynchronize(CUevent e){ PRE("cuEventSynchronize",1); ev* v=(ev*)e; if(v->recorded&&!v->done) drain(v->owner,v->mark); RET(cur->sticky); }
EXPORT CUresult CUDAAPI cuEventElapsedTime(float* ms,CUevent a,CUevent b){ PRE("cuEventElapsedTime",1); ev *x=(ev*)a,*y=(ev*)b; if(!x->recorded||!y->recorded||!x->timing||!y->timing) RET(CUDA_ERROR_INVALID_HANDLE); if(!x->done||!y->done) RET(CUDA_ERROR_NOT_READY); *ms=(y->t.tv_sec-x->t.tv_sec)*1e3f+(y->t.tv_nsec-x->t.tv_nsec)*1e-6f; RET(0); }

/* ---- test hooks ---- */
EXPORT int soft_enqueue(void* stream,soft_fn fn,void* arg){ pthread_mutex_lock(&mu); if(!sp){ pthread_mutex_unlock(&mu); return CUDA_ERROR_INVALID_CONTEXT; } st* s=sget(stack[sp-1],(CUstream)stream); if(!s){ pthread_mutex_unlock(&mu); return CUDA_ERROR_INVALID_HANDLE; } push(s,(op){.kind=2,.fn=fn,.arg=arg}); if(eager()) drain(s,~0ull); pthread_mutex_unlock(&mu); return 0; }
EXPORT int soft_check(uintptr_t p,size_t n){ pthread_mutex_lock(&mu); int r=devptr(p,n); pthread_mutex_unlock(&mu); return r; }
EXPORT size_t soft_used(int pinned){ return pinned?pinned_used:used; }
EXPORT int soft_live_streams(void){ int n=0; for(st* s=primary.streams;s;s=s->next) n++; for(int i=0;i<nctx;i++) if(ctxs[i]->live) for(st* s=ctxs[i]->streams;s;s=s->next) n++; return n; }
EXPORT int soft_ctx_depth(void){ return sp; }
EXPORT int soft_primary_refs(void){ return primary.refs; }
EXPORT void soft_fail(const char* name,int code,long after){ pthread_mutex_lock(&mu); for(int i=0;i<8;i++) if(!fault[i].on){ snprintf(fault[i].name,48,"%s",name); fault[i].code=code; fault[i].after=after; fault[i].on=1; break; } pthread_mutex_unlock(&mu); }
EXPORT void soft_clear(void){ pthread_mutex_lock(&mu); memset(fault,0,sizeof fault); if(primary.sticky) for(st* s=primary.streams;s;s=s->next) drop(s); primary.sticky=0; soft_async_pageable=0; pthread_mutex_unlock(&mu); } /* stands for a new process: nothing queued before may run after */
EXPORT void soft_poison(int code){ if(sp) stack[sp-1]->sticky=code; }
